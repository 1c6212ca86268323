"""A first configuration for pairs that somebody just found: every part there once, with a line of why."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from bettersynth.configuration.reading import read_yaml
from bettersynth.core.commands import make
from bettersynth.core.publish import read_json
from bettersynth.core.resources import resource
from bettersynth.inspect.holdings import Holdings
from bettersynth.runtime import gpus

CLIP = "CLIPModel"
PUBLISHED_CLIP = {"path": "models/clip-vit-base-patch32", "hub": "openai/clip-vit-base-patch32"}
LANGUAGE = "lid_176"
PARTS = ("models", "training", "evaluation")
"""Sections that are taken over from another configuration."""
HALF, TENTH = 0.5, 0.1


def starter(name: str, holdings: Holdings, config: Path, like: Path | None) -> str:
    """The text of a configuration named `name`, to be written to `config`; parts of `like` are taken over."""
    taken = {part: value for part, value in read_yaml(like).items() if part in PARTS} if like else {}
    known = dict(taken.pop("models", {}))
    clip = _clip_of(known)
    parts = {value for value in taken.get("training", {}).get("architecture", {}).values() if value in known}
    models = {key: value for key, value in known.items() if key in parts or key == clip}
    if clip is None and Path(PUBLISHED_CLIP["path"], "config.json").is_file():
        clip, models["clip"] = "clip", {"path": PUBLISHED_CLIP["path"]}
    language = resource(LANGUAGE).path
    if language.exists():
        models["language_id"] = {"path": str(language)}
    trains = "training" in taken and "evaluation" in taken
    lines = [
        *_head(holdings, config, like),
        *_pool(name, holdings),
        *_models(models, clip),
        *_operators(clip, "language_id" in models),
        *_datasets(holdings, clip, "language_id" in models),
        *_analyses(clip),
        *(_section(part, value) for part, value in taken.items() if part not in ("training", "evaluation") or trains),
        *_recipes(clip, trains),
    ]
    return "\n".join(lines) + "\n"


def _head(holdings: Holdings, config: Path, like: Path | None) -> Iterator[str]:
    about = "" if holdings.is_counted else "about "
    yield "# yaml-language-server: $schema=schema.json"
    yield f"# {holdings.form}, {holdings.files:,} files, {about}{holdings.records:,} pairs, as `make new` found them."
    if like:
        yield f"# Models, training and evaluation are those of {like}."
    found = len(gpus.visible())
    yield f"# {found or 'No'} GPU{'s' * (found > 1)} here. What it costs: {make('dry-run', config=config)}"
    yield "# Every key is explained in docs/configuration.md, the files in docs/pools.md."


def _pool(name: str, holdings: Holdings) -> Iterator[str]:
    entry = {"name": name, "path": holdings.pattern, "shards": holdings.shards, **holdings.keys}
    yield "pool:"
    yield "  files:"
    yield f"    - {_flow(entry)}  # a thousand pairs to a shard"
    if holdings.images:
        images = holdings.images[0] if len(holdings.images) == 1 else holdings.images
        yield f"  images: {_flow(images)}"


def _models(models: Mapping[str, Any], clip: str | None) -> Iterator[str]:
    yield ""
    yield "models:" if models else "models: {}"
    yield from (f"  {name}: {_flow(value)}" for name, value in models.items())
    if clip is None:
        yield "  # for the similarity of picture and caption: uncomment here and below, and `make stage` fetches it"
        yield f"  # clip: {_flow(PUBLISHED_CLIP)}"


def _operators(clip: str | None, language: bool) -> Iterator[str]:
    yield ""
    yield "# Each says something of every pair, once; thresholds come later, and cost nothing to change."
    yield "operators:"
    yield "  words_num: {op: words_num_filter, parameters: {text: caption}}"
    yield "  word_repetition: {op: word_repetition_filter, parameters: {text: caption, rep_len: 3}}"
    yield "  image_shape: {op: image_shape_filter}"
    yield "  image_hash: {op: image_hash}"
    if language:
        yield "  language: {op: language_id_score_filter, model: language_id, parameters: {text: caption}}"
    yield f"  {'' if clip else '# '}similarity: {{op: image_text_similarity_filter, model: {clip or 'clip'}}}"


def _datasets(holdings: Holdings, clip: str | None, language: bool) -> Iterator[str]:
    words = holdings.words or [1]
    fewest = max(1, words[int(TENTH * (len(words) - 1))])
    yield ""
    yield "datasets:"
    yield "  # one pair of each picture, the first"
    yield "  distinct: {from: pool, dedup: {by: image}}"
    yield f"  # nine in ten of the captions that were looked at have {fewest} words or more"
    yield f"  kept: {{from: distinct, filter: {{words_num: {{min: {fewest}}}, word_repetition: {{max: 0.5}}}}}}"
    yield "  # the better half: by CLIP" + ("" if clip else ", once there is one")
    yield f"  {'' if clip else '# '}best: {{from: kept, rank: {{by: similarity, fraction: {HALF}}}}}"
    if language:
        yield "  # english: {from: kept, filter: {language.lang: {one_of: [en]}}}"


def _analyses(clip: str | None) -> Iterator[str]:
    scores = ["words_num", "word_repetition", "image_shape.image_width", *(["similarity"] if clip else [])]
    yield ""
    yield "analyses:"
    yield f"  whole: {{dataset: pool, operators: {_flow(scores)}}}"


def _recipes(clip: str | None, trains: bool) -> Iterator[str]:
    dataset = "best" if clip else "kept"
    yield ""
    yield "# Trained and evaluated, beside a random part of the pool as large, which it has to beat."
    if not trains:
        yield "# It needs `training` and `evaluation`: take them over from a configuration that has them, by LIKE=…"
    yield from (
        f"{'' if trains else '# '}{line}"
        for line in ("recipes:", f"  {dataset}: {{dataset: {dataset}, seeds: [1, 2, 3], control: random}}")
    )


def _section(name: str, value: Any) -> str:
    return "\n" + yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True, width=120).rstrip()


def _flow(value: Any) -> str:
    """YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _clip_of(models: Mapping[str, Any]) -> str | None:
    """The first of the models that is a CLIP and is there."""
    for name, entry in models.items():
        config = Path(str(entry.get("path")), "config.json")
        try:
            if CLIP in (read_json(config).get("architectures") or ()):
                return name
        except (OSError, json.JSONDecodeError, AttributeError):
            continue
    return None

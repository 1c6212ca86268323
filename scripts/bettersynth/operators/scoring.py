"""Score one shard of a source with one operator."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from bettersynth.configuration.types import Configuration, Model, Operator
from bettersynth.images import ImageProblem, ImageReason, ImageRoots
from bettersynth.layout import Layout
from bettersynth.operators import offline
from bettersynth.operators.catalogue import OperatorSpec, operator_spec
from bettersynth.progress import progress
from bettersynth.publish import Card, read_json, sha256_file, sha256_folder
from bettersynth.records import Record, read_records, write_table
from bettersynth.staging import staged

Scorer = Callable[[str, list[str]], dict[str, Any]]
"""Stats of one record, from its text and the absolute paths of its images."""

ARROW_TYPES = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "word": pa.string(),
    "integers": pa.list_(pa.int64()),
    "numbers": pa.list_(pa.float64()),
    "words": pa.list_(pa.string()),
}


class ScoringError(RuntimeError):
    """A record could not be scored; the message names it."""


def score_shard(operator_name: str, configuration: Configuration, layout: Layout, source: str, shard: str) -> None:
    """Write the scores of one shard, a row for every record in its order, and their card.

    A record whose image is damaged has no value (null) and is listed in the card under `unreadable`; Data-Juicer would
    score the grey that Pillow fills it up with. Whatever else goes wrong is a ScoringError that names the record.
    """
    operator = configuration.operators[operator_name]
    spec = operator_spec(operator.op)
    model = configuration.models[operator.model] if operator.model else None
    records_path = layout.records(source, shard)
    records = list(read_records(records_path))
    roots = ImageRoots(configuration.pool, layout)
    card = Card(name=operator_name, source=source, shard=shard)

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as cache:
        offline.prepare(cache, configuration.pool.max_pixels)
        scorer = load_scorer(operator, model, configuration.pool.max_pixels)
    loaded = time.monotonic()
    stats: list[dict[str, Any]] = []
    unreadable: dict[str, str] = {}
    for record in progress(records, len(records), f"{operator_name} on {shard}"):
        try:
            images = [str(roots.path(record.image_root, image)) for image in record.images]
            stats.append(scorer(record.text, images))
        except Exception as error:
            problem = damaged_image(record, roots)
            if problem is None:
                raise ScoringError(
                    f"{operator_name} cannot score record {record.id} of {records_path}: "
                    f"{type(error).__name__}: {error}\nRun again when this is mended: shards already scored stay."
                ) from error
            stats.append(dict.fromkeys(spec.stats))
            unreadable[record.id] = problem.detail
    scored = time.monotonic()

    table = scores_table([record.id for record in records], stats, spec)
    if table.num_rows != len(records):
        raise ScoringError(f"{operator_name} gave {table.num_rows} scores for {len(records)} records of {records_path}")
    scores_path = layout.scores(source, operator_name, shard)
    write_table(scores_path, table)
    card.write(
        layout.scores_card(source, operator_name, shard),
        rows=table.num_rows,
        records=len(records),
        records_sha256=sha256_file(records_path),
        unreadable=unreadable,
        sha256=sha256_file(scores_path),
        inputs=model_facts(model, spec),
        parameters={"op": operator.op, **spec.completed(operator.parameters)},
        rate=round(len(records) / max(scored - loaded, 1e-9), 3),
        seconds_by_part={"loading": round(loaded - started, 3), "computing": round(scored - loaded, 3)},
        **tagger_facts(spec, model),
    )


def damaged_image(record: Record, roots: ImageRoots) -> ImageProblem | None:
    """The problem of the record's first image that cannot be decoded, if there is one.

    A file that is missing is none: the folder may be unreachable just now.
    """
    for image in record.images:
        try:
            roots.open(record.image_root, image)
        except ImageProblem as problem:
            return problem if problem.reason == ImageReason.UNREADABLE else None
    return None


def load_scorer(operator: Operator, model: Model | None, max_pixels: int) -> Scorer:
    """The operator, loaded on the GPU where there is one. `offline.prepare` must have been called."""
    if operator.op == "image_hash":
        from bettersynth.operators.image_hash import hash_images

        return lambda text, images: hash_images(images, max_pixels)
    import torch

    from bettersynth.operators.data_juicer import build, score

    built = build(operator, model, "cuda" if torch.cuda.is_available() else "cpu")

    @torch.inference_mode()
    def scorer(text: str, images: list[str]) -> dict[str, Any]:
        return score(built, text, images)

    return scorer


def scores_table(ids: list[str], stats: list[dict[str, Any]], spec: OperatorSpec) -> pa.Table:
    """The table of `id` and one column for every stats key; a record without a key is an error."""
    columns = {"id": pa.array(ids, pa.string())}
    for key, kind in spec.stats.items():
        values = [_plain(entry[key]) for entry in stats]
        columns[key] = pa.array(values, ARROW_TYPES[kind])
    return pa.table(columns)


def _plain(value: Any) -> Any:
    """NumPy's arrays and numbers as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value


def model_facts(model: Model | None, spec: OperatorSpec) -> dict[str, str]:
    """sha256 of the model and of the staged resources that the operator read."""
    facts = {name: sha256_folder(staged(name)) for name in spec.resources}
    if model is not None:
        facts["model"] = sha256_folder(model.path)
    return facts


def tagger_facts(spec: OperatorSpec, model: Model | None) -> dict[str, str]:
    """Which spaCy model tagged the words, where words were tagged: Data-Juicer names 3.7.0 and NLTK's tagger."""
    if spec.model_argument == "spacy" and model is not None:
        folder = Path(model.path)
    elif "spacy_en" in spec.resources:
        folder = staged("spacy_en")
    else:
        return {}
    meta = read_json(folder / "meta.json")
    return {"tagger": f"spaCy {meta['lang']}_{meta['name']} {meta['version']}"}

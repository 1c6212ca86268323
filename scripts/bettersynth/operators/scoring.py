"""Score a source's shards by the operators of a pass."""

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
from bettersynth.passes import Chunk, chunk_shards
from bettersynth.progress import progress
from bettersynth.publish import Card, read_json, sha256_file, sha256_folder, sha256_json
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


def score_chunk(source: str, chunk: Chunk, configuration: Configuration, layout: Layout) -> None:
    """Score a chunk of shards by the operators of a pass; publish each shard's scores and, last, the pass's card.

    A shard that an operator has scored before, by these settings and of these records, is not scored again: so a job
    that was killed goes on where it was. Raises ScoringError for a record that cannot be scored.
    """
    operators: dict[str, str] = read_json(layout.scoring_pass(chunk.scoring))["operators"]
    card = Card(source=source, scoring=chunk.scoring, chunk=chunk.chunk, operators=operators)
    scorers = Scorers(configuration)
    shards: dict[str, dict[str, Any]] = {}
    for shard in chunk_shards(chunk.chunk):
        records_path = layout.records(source, shard)
        records_sha256 = sha256_file(records_path)
        keys = {name: sha256_json([fingerprint, records_sha256])[:16] for name, fingerprint in operators.items()}
        for name, key in keys.items():
            if not layout.score_shard(source, name, shard, key).with_suffix(".json").exists():
                score_shard(name, key, scorers, records_path, configuration, layout, source, shard)
        shards[shard] = {"records": records_sha256, "scores": keys}
    card.write(layout.pass_card(source, *chunk), shards=shards)


class Scorers:
    """Operators of a job, each loaded when it is first needed."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._loaded: dict[str, Scorer] = {}

    def __getitem__(self, name: str) -> Scorer:
        if name not in self._loaded:
            operator = self._configuration.operators[name]
            model = self._configuration.models[operator.model] if operator.model else None
            max_pixels = self._configuration.pool.max_pixels
            with tempfile.TemporaryDirectory() as cache:
                offline.prepare(cache, max_pixels)
                self._loaded[name] = load_scorer(operator, model, max_pixels)
        return self._loaded[name]


def score_shard(
    name: str,
    key: str,
    scorers: Scorers,
    records_path: Path,
    configuration: Configuration,
    layout: Layout,
    source: str,
    shard: str,
) -> None:
    """Write the scores of one shard, a row for every record in its order, and their card.

    A record whose image is damaged has no value (null) and is listed in the card under `unreadable`; Data-Juicer would
    score the grey that Pillow fills it up with. Whatever else goes wrong is a ScoringError that names the record.
    """
    operator = configuration.operators[name]
    spec = operator_spec(operator.op)
    model = configuration.models[operator.model] if operator.model else None
    records = list(read_records(records_path))
    roots = ImageRoots(configuration.pool, layout)
    card = Card(name=name, source=source, shard=shard)

    started = time.monotonic()
    scorer = scorers[name]
    loaded = time.monotonic()
    stats: list[dict[str, Any]] = []
    unreadable: dict[str, str] = {}
    for record in progress(records, len(records), f"{name} on {shard}"):
        try:
            images = [str(roots.path(record.image_root, image)) for image in record.images]
            stats.append(scorer(record.text, images))
        except Exception as error:
            problem = damaged_image(record, roots)
            if problem is None:
                raise ScoringError(
                    f"{name} cannot score record {record.id} of {records_path}: "
                    f"{type(error).__name__}: {error}\nRun again when this is mended: shards already scored stay."
                ) from error
            stats.append(dict.fromkeys(spec.stats))
            unreadable[record.id] = problem.detail
    scored = time.monotonic()

    table = scores_table([record.id for record in records], stats, spec)
    if table.num_rows != len(records):
        raise ScoringError(f"{name} gave {table.num_rows} scores for {len(records)} records of {records_path}")
    scores_path = layout.score_shard(source, name, shard, key)
    write_table(scores_path, table)
    card.write(
        scores_path.with_suffix(".json"),
        rows=table.num_rows,
        records=len(records),
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

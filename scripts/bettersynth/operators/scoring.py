"""Score a source's shards by the operators of a pass."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bettersynth.configuration.operator import OperatorSpec
from bettersynth.configuration.operators import operator_spec
from bettersynth.configuration.pool import Model
from bettersynth.configuration.types import Configuration
from bettersynth.core.digests import sha256_folder
from bettersynth.core.layout import Layout
from bettersynth.core.publish import Card, read_json, sha256_file, sha256_json
from bettersynth.core.records import read_records
from bettersynth.core.resources import staged
from bettersynth.core.tables import read_table, write_table
from bettersynth.operators.batched.errors import RecordError
from bettersynth.operators.batched.load import load_scorer, plain
from bettersynth.operators.ray.engine import RayScorer
from bettersynth.pool.images import ImageRoots
from bettersynth.workflow.passes import Chunk, chunk_shards, is_scored, pass_operators

if TYPE_CHECKING:
    from bettersynth.operators.batched.scorer import BatchScorer, OperatorScores

ARROW_TYPES = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "word": pa.string(),
    "integers": pa.list_(pa.int64()),
    "numbers": pa.list_(pa.float64()),
    "words": pa.list_(pa.string()),
    "vector": pa.list_(pa.int8()),
}


logger = logging.getLogger(__name__)


class ScoringError(RuntimeError):
    """A record could not be scored; the message names it."""


def score_chunk(
    source: str,
    chunk: Chunk,
    configuration: Configuration,
    layout: Layout,
    fingerprint: Callable[[str], str] | None = None,
) -> None:
    """Score a chunk of shards by the operators of a pass; publish each shard's scores and, last, the pass's card.

    A shard that an operator has scored before, by these settings and of these records, is not scored again: so a job
    that was killed goes on where it was. An operator that the configuration no longer has, or has with another model or
    other parameters by its `fingerprint`, is left out: when shards of a pass change, it runs again for the others.
    Raises ScoringError for a record that cannot be scored.
    """
    operators = pass_operators(chunk.scoring, configuration, layout)
    if fingerprint is not None:
        operators = {name: known for name, known in operators.items() if fingerprint(name) == known}
    if not operators:
        raise ScoringError(f"the operators of the pass {chunk.scoring}, or their models, changed since; run again")
    card = Card(source=source, scoring=chunk.scoring, chunk=chunk.chunk, operators=operators)
    shards: dict[str, dict[str, Any]] = {}
    due: dict[str, dict[str, Path]] = {}
    for shard in chunk_shards(chunk.chunk):
        records_sha256 = sha256_file(layout.records(source, shard))
        keys = {name: sha256_json([fingerprint, records_sha256])[:16] for name, fingerprint in operators.items()}
        paths = {name: layout.score_shard(source, name, shard, key) for name, key in keys.items()}
        due[shard] = {name: path for name, path in paths.items() if not is_scored(path)}
        shards[shard] = {"records": records_sha256, "scores": keys}
    due = {shard: paths for shard, paths in due.items() if paths}
    if len(due) < len(shards):
        logger.info("%s: %d of %d shards were scored before", chunk.chunk, len(shards) - len(due), len(shards))
    if due:
        score_shards(source, due, configuration, layout)
    card.write(layout.pass_card(source, *chunk), shards=shards)


def score_shards(
    source: str, due: Mapping[str, Mapping[str, Path]], configuration: Configuration, layout: Layout
) -> None:
    """Publish the scores of shards, a row for every record in its order, and beside each Parquet its card.

    `due` is shard → operator → path of the Parquet. A record whose image is damaged has no value (null) and is listed
    in the card under `unreadable`; Data-Juicer would score the grey that Pillow fills it up with. One that an operator
    raises for (a caption longer than spaCy takes, a time limit of NLTK) has none of it either and is listed under
    `failed`. Whatever else goes wrong is a ScoringError that names the record.
    """
    names = {name for paths in due.values() for name in paths}
    records = {shard: layout.records(source, shard) for shard in due}
    total = sum(read_table(path, ["id"]).num_rows for path in records.values())
    shards = ((shard, list(read_records(records[shard])), paths.keys()) for shard, paths in due.items())

    def publish(shard: str, scores: dict[str, OperatorScores], seconds: float) -> None:
        facts = hashed.result()
        spent = sum(found.own_seconds for found in scores.values())
        for name, found in scores.items():
            share = seconds * found.own_seconds / spent if spent else 0.0
            for record, reason in found.failed.items():
                logger.warning("%s cannot score record %s, which has no value: %s", name, record, reason)
            card = Card(name=name, source=source, shard=shard, seconds=round(share, 3), **facts[name])
            publish_scores(due[shard][name], found, records[shard], card, seconds)

    try:
        with ThreadPoolExecutor(1) as publisher:  # while models are loaded, and the device is at the next shard
            hashed = publisher.submit(lambda: {name: operator_facts(name, configuration) for name in names})
            scorer = open_scorer(names, configuration)
            gc.freeze()  # libraries and models are a million objects, to be looked through no more, here and in workers
            started = time.monotonic()
            published: Future[None] | None = None
            for shard, scores in scorer.score_shards(shards, ImageRoots(configuration.pool, layout).load(), total):
                if published:
                    published.result()
                published = publisher.submit(publish, shard, scores, time.monotonic() - started)
                started = time.monotonic()
            if published:
                published.result()
    except RecordError as error:
        raise ScoringError(
            f"{error.operators} cannot score record {error.record} of {records[error.shard]}: {error.reason}\n"
            "Run again when this is mended: shards already scored stay."
        ) from error


def open_scorer(names: Iterable[str], configuration: Configuration) -> BatchScorer | RayScorer:
    """What scores by the configuration's operators of these names, as `scoring.engine` says."""
    return (
        RayScorer(names, configuration) if configuration.scoring.engine == "ray" else load_scorer(names, configuration)
    )


def publish_scores(path: Path, scores: OperatorScores, records_path: Path, card: Card, seconds: float) -> None:
    """Write one operator's scores of one shard, then their card; `seconds` is what the shard took the whole pass."""
    ids = read_table(records_path, ["id"])["id"].to_pylist()
    table = scores_table(ids, scores.stats, operator_spec(card.facts["parameters"]["op"]))
    write_table(path, table)
    card.write(
        path.with_suffix(".json"),
        rows=table.num_rows,
        records=len(ids),
        unreadable=scores.unreadable,
        failed=scores.failed,
        sha256=sha256_file(path),
        rate=round(len(ids) / max(seconds, 1e-9), 3),
        seconds_by_part={part: round(spent, 3) for part, spent in scores.seconds.items()},
        device=scores.device,
        precision=scores.precision,
        batch=scores.batch,
    )


def operator_facts(name: str, configuration: Configuration) -> dict[str, Any]:
    """What the operator's cards say of its parameters and of the files it read."""
    operator = configuration.operators[name]
    spec = operator_spec(operator.op)
    model = configuration.models[operator.model] if operator.model else None
    return {
        "inputs": model_facts(model, spec),
        "parameters": {"op": operator.op, **spec.stated(operator.parameters)},
        **tagger_facts(spec, model),
    }


def scores_table(ids: list[str], stats: list[dict[str, Any]], spec: OperatorSpec) -> pa.Table:
    """The table of `id` and one column for every stats key; a record without a key is an error."""
    columns = {"id": pa.array(ids, pa.string())}
    for key, kind in spec.stats.items():
        values = [plain(entry[key]) for entry in stats]
        columns[key] = pa.array(values, ARROW_TYPES[kind])
    return pa.table(columns)


def model_facts(model: Model | None, spec: OperatorSpec) -> dict[str, str]:
    """sha256 of the model and of the staged resources that the operator read."""
    facts = {name: sha256_folder(staged(name)) for name in spec.resources}
    if model is not None:
        facts["model"] = sha256_folder(model.path)
    return facts


def tagger_facts(spec: OperatorSpec, model: Model | None) -> dict[str, str]:
    """Which spaCy model tagged the words, where words were tagged: Data-Juicer names 3.7.0 and NLTK's tagger."""
    if spec.tagger is None:
        return {}
    folder = Path(model.path) if spec.tagger == "model" and model is not None else staged("spacy_en")
    meta = read_json(folder / "meta.json")
    return {"tagger": f"spaCy {meta['lang']}_{meta['name']} {meta['version']}"}

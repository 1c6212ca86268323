"""Generators: verbs that make a new source. They write captions again, draw images again, or clean captions.

A row that cannot be made is reported with its reason and never replaced by another.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pyarrow as pa

from bettersynth.configuration.types import Configuration
from bettersynth.core.image_paths import ImageReason
from bettersynth.core.layout import Layout
from bettersynth.core.progress import progress
from bettersynth.core.publish import Card, sha256_file, sha256_json
from bettersynth.core.records import FAILED, Record, write_records
from bettersynth.core.steady import Steady
from bettersynth.core.tables import write_table
from bettersynth.pool.images import ImageRoots
from bettersynth.pool.rows import asked_rows, load_records, read_rows
from bettersynth.sources.base import Generation, Generator
from bettersynth.sources.journal import Journal
from bettersynth.workflow.archives import is_there
from bettersynth.workflow.plan import Plan

logger = logging.getLogger(__name__)


def make_source_shard(source: str, shard: str, configuration: Configuration, layout: Layout, plan: Plan) -> None:
    """Write one shard of a generated source: its records, the rows that failed and, last, the card.

    Finished work is kept in a journal and used again after a kill, or when a later run asks for other rows.
    """
    node = plan.dataset(source)
    verb = plan.generators[source]
    card = Card(name=source, verb=verb.name, shard=shard, parameters=verb.model_dump(mode="json"))
    rows = asked_rows(read_rows(node.from_, layout), shard, verb.shards)
    table = load_records(rows, layout, plan).select(list(Record._fields))
    records = [Record(**row) for row in table.to_pylist()]
    roots = ImageRoots(configuration.pool, layout).load()
    generations: list[Generation] = []
    reused, facts = 0, dict[str, Any]()
    if records:
        generator: Generator = verb.generator(source, configuration, roots, layout.source_images(source))
        journal = Journal(layout.work(source, shard)) if generator.resumes else None
        steady = Steady()
        generations, reused = _generations(records, generator, journal, roots, shard, steady)
        facts = generator.facts | (steady.facts() if journal else {})
    else:
        logger.info("%s: no rows of `%s` are in this shard; nothing is made and no model loaded", shard, node.from_)

    made = [record for generation in generations for record in generation.records]
    sources = rows["source"].to_pylist()
    failed = [
        (record.id, old, generation.reason)
        for record, old, generation in zip(records, sources, generations, strict=True)
        if not generation.records
    ]
    path = layout.records(source, shard)
    write_records(path, made)
    columns = list(zip(*failed, strict=True)) or [(), (), ()]
    write_table(layout.failed(source, shard), pa.table([pa.array(column, pa.string()) for column in columns], FAILED))
    card.write(
        layout.records_card(source, shard),
        beside=[layout.failed(source, shard)],
        asked=len(records),
        made=len(records) - len(failed),
        rows=len(made),
        failed=dict(sorted(Counter(reason for _, _, reason in failed).items())),
        reused=reused,
        sha256=sha256_file(path),
        inputs={node.from_: sha256_file(layout.rows(node.from_))},
        **facts,
    )


def _generations(
    records: list[Record], generator: Generator, journal: Journal | None, roots: ImageRoots, shard: str, steady: Steady
) -> tuple[list[Generation], int]:
    """The records' generations, and how many of them came from the journal."""
    if journal is None:
        made = {place: generation for part in generator.make(records) for place, generation in part.items()}
        return [made[place] for place in range(len(records))], 0
    keys = [
        sha256_json([[*record[:4], *([record.image_sha256] if record.image_sha256 else [])], generator.facts])
        for record in records
    ]
    found = {key: _recalled(journal.get(key), roots) for key in keys}
    todo = [(key, record) for key, record in zip(keys, records, strict=True) if found[key] is None]
    if done := len(records) - len(todo):
        logger.info("%s: %d of %d records were made before", shard, done, len(records))
    for made in progress(generator.make([record for _, record in todo]), len(todo), shard, size=len):
        generations = {todo[place][0]: generation for place, generation in made.items()}
        steady.add(len(made))
        journal.append({key: generation._asdict() for key, generation in generations.items()})
        found.update(generations)
    return [found[key] for key in keys], done  # type: ignore[misc]


def _recalled(entry: dict[str, Any] | None, roots: ImageRoots) -> Generation | None:
    """A journal entry as generation; nothing when an image may be mended by now, or one that was made is gone."""
    if entry is None or entry["reason"] in set(ImageReason):
        return None
    records = [Record(*record) for record in entry["records"]]
    images = ((record.image_root, image) for record in records for image in record.images)
    return Generation(records, entry["reason"]) if all(is_there(roots.path(*image)) for image in images) else None

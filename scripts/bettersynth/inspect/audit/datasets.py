"""Datasets: every row of a parent is kept or dropped with a reason, and the verb gives the same rows again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from bettersynth.core.publish import sha256_json
from bettersynth.core.records import FAILED, POOL, original_id, record_table
from bettersynth.core.tables import read_table
from bettersynth.datasets.analysis import stats_of
from bettersynth.datasets.build import applied
from bettersynth.datasets.step import Step
from bettersynth.inspect.audit import scores
from bettersynth.inspect.audit.links import Audited, Link
from bettersynth.pool.rows import asked_rows, read_rows
from bettersynth.sources.journal import read_line
from bettersynth.workflow.manifest import Problem


def links(audited: Audited) -> Iterator[Link]:
    """Each dataset after its parents, a generated one's records and scores first; then analyses and exports."""
    layout, configuration = audited.layout, audited.configuration
    for name in dict.fromkeys(chain.from_iterable(map(audited.plan.lineage, configuration.datasets))):
        if name in audited.plan.generators:
            yield from _source(audited, name)
        if layout.dataset_card(name).exists():
            yield Link(layout.dataset_card(name), partial(_dataset, audited, name))
    for name in configuration.analyses:
        if layout.analysis(name).exists():
            yield Link(layout.analysis(name), partial(_analysis, audited, name))
    for dataset, forms in configuration.exports.items():
        for form in forms:
            if (card := layout.export(dataset, form) / "card.json").exists():
                yield Link(card, partial(_export, audited, dataset, card))


def _source(audited: Audited, source: str) -> Iterator[Link]:
    layout = audited.layout
    for shard in audited.plan.shards(source):
        if layout.work(source, shard).exists():
            yield Link(layout.work(source, shard), partial(_journal, audited, source, shard))
        if layout.records_card(source, shard).exists():
            yield Link(layout.records_card(source, shard), partial(_generated, audited, source, shard))
    yield from scores.links(audited, source)


def _journal(audited: Audited, source: str, shard: str) -> Iterator[Problem]:
    path = audited.layout.work(source, shard)
    *lines, _ = path.read_bytes().split(b"\n")
    if damaged := [number for number, raw in enumerate(lines, 1) if read_line(raw) is None]:
        yield audited.problem(path, f"{len(damaged)} lines are damaged, first line {damaged[0]}")


def _generated(audited: Audited, source: str, shard: str) -> Iterator[Problem]:
    """Every row that was asked for was made, or is reported as failed, and drawn images have their digests' names."""
    layout, path = audited.layout, audited.layout.records_card(source, shard)
    card, records = audited.card(path), layout.records(source, shard)
    audited.check(records, card["sha256"], path)
    audited.check_beside(path)
    parent = audited.plan.dataset(source).from_
    yield from audited.made_of(path, card["inputs"], {parent: layout.rows(parent)})
    table, failed = record_table(records), read_table(layout.failed(source, shard), FAILED.names)
    yield from audited.mismatch(path, "failed", dict(Counter(failed["reason"].to_pylist())), card["failed"])
    yield from audited.mismatch(path, "rows", card["rows"], table.num_rows)
    asked = asked_rows(audited.rows(parent), shard, audited.plan.generators[source].shards)["id"].to_pylist()
    made = table["id"].to_pylist()
    if audited.plan.makes_variants(source):
        made = list(dict.fromkeys(map(original_id, made)))
    left = sorted([*made, *failed["id"].to_pylist()])
    if left != sorted(asked):
        what = f"{len(made)} rows made and {len(failed)} failed are not the {len(asked)} of {parent}"
        yield audited.problem(records, what, path)
    drawn = table.filter(pc.equal(table["image_root"], source))
    for image in drawn["images"].combine_chunks().flatten().unique().to_pylist():
        file = layout.source_images(source) / image
        if not file.exists() or audited.sha256(file) != Path(image).stem:
            yield audited.problem(file, "is not the picture that was drawn", records, path)


def _dataset(audited: Audited, name: str) -> Iterator[Problem]:
    layout, node = audited.layout, audited.plan.dataset(name)
    path, card = layout.dataset_card(name), audited.card(layout.dataset_card(name))
    audited.check(layout.rows(name), card["sha256"], path)
    audited.check_beside(path)
    if card["parameters"] != node.verb.model_dump(mode="json", exclude_none=True) or card["parents"] != node.parents:
        yield audited.outdated(path, "was made by another definition than the configuration has now")
        return
    others = list(audited.made_of(path, card["inputs"], {parent: layout.rows(parent) for parent in node.parents}))
    yield from others
    if others:
        return
    ledger, rows, dropped = card["ledger"], audited.rows(name), read_table(layout.dropped(name))
    kept_and_dropped = ledger["out"] + sum(ledger["dropped"].values())
    yield from audited.mismatch(path, "rows in and added", ledger["in"] + ledger["added"], kept_and_dropped)
    yield from audited.mismatch(path, "rows", [ledger["out"], card["rows"]], [rows.num_rows] * 2)
    yield from audited.mismatch(path, "rows dropped", dropped.num_rows, sum(ledger["dropped"].values()))
    outcome = applied(node.verb, Step(name, layout, audited.plan))
    yield from audited.mismatch(path, "the ledger", ledger, outcome.ledger())
    if not _same(rows, outcome.rows):
        yield audited.problem(layout.rows(name), f"not the rows that `{node.verb.name}` gives", path)
    if not _same(dropped.select(outcome.dropped.column_names), outcome.dropped):
        yield audited.problem(layout.dropped(name), f"not the rows that `{node.verb.name}` leaves out", path)


def _same(one: pa.Table, other: pa.Table) -> bool:
    return bool(one.combine_chunks().equals(other.combine_chunks().cast(one.schema)))


def _analysis(audited: Audited, name: str) -> Iterator[Problem]:
    layout, definition = audited.layout, audited.configuration.analyses[name]
    path, card = layout.analysis(name), audited.card(layout.analysis(name))
    others = list(audited.made_of(path, card["inputs"], {definition.dataset: layout.rows(definition.dataset)}))
    yield from others
    if not others:
        stats = stats_of(read_rows(definition.dataset, layout), definition.operators, layout, audited.plan)
        yield from audited.mismatch(path, "figures", sha256_json(card["stats"]), sha256_json(stats))


def _export(audited: Audited, dataset: str, path: Path) -> Iterator[Problem]:
    card = audited.card(path)
    audited.check_beside(path)
    yield from audited.made_of(path, card["inputs"], {dataset: audited.layout.rows(dataset)})
    rows = audited.rows(dataset).num_rows if dataset != POOL else card["rows"]
    yield from audited.mismatch(path, "rows", card["rows"], rows)

"""Scores: each shard of them is of the records that are there, by id and by sha256, and gathered as they were found."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa

from bettersynth.core.publish import sha256_json
from bettersynth.core.tables import read_table
from bettersynth.inspect.audit.links import Audited, Link
from bettersynth.pool.rows import records_sha256
from bettersynth.workflow.manifest import Problem


def links(audited: Audited, source: str) -> Iterator[Link]:
    """The passes over a source, and the tables that gather what they found."""
    layout = audited.layout
    folder = layout.scores_card(source, "any").parent / "passes"
    for card in sorted(folder.glob("*-*/*.json")):
        if layout.scoring_pass(card.parent.name).exists():
            yield Link(layout.scoring_pass(card.parent.name), partial(_definition, audited, card.parent.name))
        yield Link(card, partial(_pass, audited, source, card))
    for operator in audited.configuration.operators:
        if layout.scores_card(source, operator).exists():
            yield Link(layout.scores_card(source, operator), partial(_gathered, audited, source, operator))


def _definition(audited: Audited, scoring: str) -> Iterator[Problem]:
    """A pass has its name of what it is."""
    path = audited.layout.scoring_pass(scoring)
    name = f"{scoring.partition('-')[0]}-{sha256_json(audited.card(path)['operators'])[:12]}"
    yield from audited.mismatch(path, "the operators make the name", name, scoring)


def _pass(audited: Audited, source: str, path: Path) -> Iterator[Problem]:
    """The key of each shard is of the operator's fingerprint and of the records."""
    card = audited.card(path)
    for shard, entry in card["shards"].items():
        for operator, key in entry["scores"].items():
            made = sha256_json([card["operators"][operator], entry["records"]])[:16]
            yield from audited.mismatch(path, f"key of {operator} for {shard}", key, made)


def _gathered(audited: Audited, source: str, operator: str) -> Iterator[Problem]:
    layout, path = audited.layout, audited.layout.scores_card(source, operator)
    card, table_path = audited.card(path), layout.scores(source, operator)
    audited.check(table_path, card["sha256"], path)
    present = records_sha256(source, layout, audited.plan)
    scored = {shard: entry["records"] for shard, entry in card["shards"].items()}
    if other := sorted(shard for shard in present.keys() | scored.keys() if present.get(shard) != scored.get(shard)):
        records = layout.records(source, other[0])
        yield audited.outdated(path, f"was made of other records than {records} holds ({len(other)} shards differ)")
        return
    parts = []
    for shard, entry in card["shards"].items():
        part = layout.score_shard(source, operator, shard, entry["key"])
        shard_card = part.with_suffix(".json")
        if not (part.exists() and shard_card.exists()):
            yield audited.problem(part if shard_card.exists() else shard_card, "it is gone", part, shard_card)
            return
        audited.check(part, audited.card(shard_card)["sha256"], shard_card)
        parts.append(read_table(part))
        if not parts[-1]["id"].combine_chunks().equals(audited.ids(source, shard)):
            yield audited.problem(part, f"scores other records than {layout.records(source, shard)} holds", shard_card)
    if not read_table(table_path).equals(pa.concat_tables(parts, promote_options="permissive").combine_chunks()):
        yield audited.problem(table_path, "is not what its shards hold, one after the other", path)

"""Pairs to look at: kept and dropped just at a threshold, and pairs before and after rewriting.

Which pairs are shown is decided first, by rows `(id, source)`; their records are then read once for all.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from bettersynth.configuration.operators import operator_spec
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.names import StatKey
from bettersynth.core.publish import sha256_bytes
from bettersynth.core.records import ROWS, caption_of, original_id
from bettersynth.datasets.columns import row_means
from bettersynth.datasets.ledger import read_dropped
from bettersynth.datasets.values import bound_text, plain, values_of
from bettersynth.pool.images import ImageProblem, ImageRoots
from bettersynth.pool.rows import load_records, read_rows
from bettersynth.report.distributions import Scores, filters
from bettersynth.workflow.plan import Plan

SIDE = 112
"""Longest side of a thumbnail, in pixels."""
AT_THRESHOLD = 3
"""Pairs shown on each side of a threshold."""
REWRITTEN = 6
MOST_THRESHOLDS = 60
MOST_SHEETS = 12
"""Sheets of more bounds than these are folded."""
MOST_GENERATORS = 8

Pair = dict[str, Any]
"""A pair as the page shows it: `id`, `caption`, and `image` (a data URI) or `problem` (why there is none)."""


INSIDE = {"min": "at the bound or just above", "max": "at the bound or just below"}
OUTSIDE = {"min": "just below the bound", "max": "just above the bound"}
"""Where kept and dropped pairs lie: intervals are closed."""


class Bound(NamedTuple):
    """One end of a threshold's interval: its `min` or its `max`."""

    dataset: str
    key: StatKey
    any_or_all: str
    side: str
    value: float


class Gallery:
    """The records of the pairs to be shown, with thumbnails of their first images."""

    def __init__(self, rows: pa.Table, configuration: Configuration, layout: Layout, plan: Plan) -> None:
        self._roots = ImageRoots(configuration.pool, layout)
        distinct = rows.group_by(ROWS.names, use_threads=False).aggregate([])
        records = load_records(distinct, layout, plan).to_pylist() if rows.num_rows else []
        self._pairs = {(record["id"], record["source"]): self._show(record) for record in records}

    def pairs(self, rows: pa.Table) -> list[Pair]:
        """The pairs of the rows, in order."""
        return [self._pairs[row["id"], row["source"]] for row in rows.to_pylist()]

    def _show(self, record: dict[str, Any]) -> Pair:
        pair = {"id": record["id"], "caption": caption_of(record["text"])}
        try:
            return pair | {"image": _data_uri(self._roots.open(record["image_root"], record["images"][0]))}
        except ImageProblem as problem:
            return pair | {"problem": str(problem.reason)}


def _data_uri(image: Image.Image) -> str:
    image.thumbnail((SIDE, SIDE))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=72, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def examples(configuration: Configuration, layout: Layout, plan: Plan, scores: Scores) -> dict[str, Any]:
    """`at_thresholds` and `rewritten` with their pairs, and how many of each were left out as too many.

    Only what can be shown from the files on this machine: records need not be where a report is made.
    """
    at_thresholds = list(_at_thresholds(configuration, layout, plan, scores))
    rewritten = list(_rewritten(layout, plan, scores))
    shown = at_thresholds[:MOST_THRESHOLDS], rewritten[:MOST_GENERATORS]
    tables = [table for entry in (*shown[0], *shown[1]) for table in entry["rows"].values()]
    gallery = Gallery(pa.concat_tables([ROWS.empty_table(), *tables]), configuration, layout, plan)
    for entry in (*shown[0], *shown[1]):
        entry["pairs"] = {side: gallery.pairs(rows) for side, rows in entry.pop("rows").items()}
    return {
        "at_thresholds": shown[0],
        "thresholds_left_out": len(at_thresholds) - len(shown[0]),
        "rewritten": shown[1],
        "generators_left_out": len(rewritten) - len(shown[1]),
    }


def _at_thresholds(
    configuration: Configuration, layout: Layout, plan: Plan, scores: Scores
) -> Iterator[dict[str, Any]]:
    """For each bound that dropped something: the rows next to it on both sides, nearest first, and their scores.

    Filters of the same parent that share a bound are shown once.
    """
    seen = set()
    for bound in _bounds(configuration):
        shown = (plan.dataset(bound.dataset).from_, *bound[1:])
        if shown in seen or not layout.dataset_card(bound.dataset).exists():
            continue
        seen.add(shown)
        dropped = _dropped_by(bound, read_dropped(layout.dropped(bound.dataset)))
        kept = read_rows(bound.dataset, layout)
        nearest = {"kept": _nearest(bound, kept, scores), "dropped": _nearest(bound, dropped, scores)}
        rows = {side: near for side, (near, _) in nearest.items()}
        if dropped.num_rows and all(_readable(near, layout, plan) for near in rows.values()):
            yield {
                "dataset": bound.dataset,
                "rule": f"{bound.key} {'≥' if bound.side == 'min' else '≤'} {plain(bound.value)}",
                "kept": kept.num_rows,
                "dropped": dropped.num_rows,
                "where": {"kept": INSIDE[bound.side], "dropped": OUTSIDE[bound.side]},
                "rows": rows,
                "scores": {side: values for side, (_, values) in nearest.items()},
            }


def _bounds(configuration: Configuration) -> Iterator[Bound]:
    for name, key, threshold in filters(configuration):
        for side, value in (("min", threshold.min), ("max", threshold.max)):
            if value is not None:
                yield Bound(name, key, threshold.any_or_all, side, value)


def _dropped_by(bound: Bound, dropped: pa.Table) -> pa.Table:
    """The rows that a dataset dropped for this bound, as the reasons say."""
    keys = {key: StatKey.parse(key) for key in pc.unique(dropped["key"]).to_pylist()}
    mine = [key for key, named in keys.items() if bound.key in (named, StatKey(named.operator))]
    by_key = pc.is_in(dropped["key"], value_set=pa.array(mine, pa.string()))
    here = pc.and_(by_key, pc.equal(dropped["bound"], bound_text(bound.side, bound.value)))
    return dropped.filter(here).select(ROWS.names)


def _nearest(bound: Bound, rows: pa.Table, scores: Scores) -> tuple[pa.Table, list[float]]:
    """The distinct rows whose scores lie nearest to the bound, and those scores."""
    tables, values = [ROWS.empty_table()], [np.empty(0)]
    for source in pc.unique(rows["source"]).to_pylist():
        scored = _decisive(bound, source, scores)
        if scored is not None:
            ids = pc.unique(rows["id"].filter(pc.equal(rows["source"], source)))
            places = pc.index_in(ids, value_set=scored[0]).drop_null()
            mine = scored[0].take(places)
            tables.append(pa.table([mine, pa.repeat(source, len(mine))], ROWS))
            values.append(scored[1][places.to_numpy()])
    found, value = pa.concat_tables(tables), np.concatenate(values)
    distance = np.abs(value - bound.value)
    farthest = np.partition(distance, AT_THRESHOLD - 1)[AT_THRESHOLD - 1] if len(distance) > AT_THRESHOLD else np.inf
    near = np.flatnonzero(distance <= farthest)
    order = near[np.lexsort((found["id"].take(pa.array(near)).to_numpy(), distance[near]))[:AT_THRESHOLD]]
    return found.take(pa.array(order)), value[order].tolist()


def _decisive(bound: Bound, source: str, scores: Scores) -> tuple[pa.Array, np.ndarray] | None:
    """Ids with a score in the source, and of each the value that decides: with `any`, the best of its values."""
    table = scores.table(source, bound.key.operator)
    if table is None:
        return None
    stat = bound.key.stat or next(name for name in table.column_names if name != "id")
    values = values_of(stat, table[stat])
    present = np.flatnonzero(values.counts)
    if not len(present):
        return None
    largest = (bound.side == "min") == (bound.any_or_all == "any")
    decisive = (np.fmax if largest else np.fmin).reduceat(values.flat, values.starts[present])
    return table["id"].combine_chunks().take(pa.array(present)), decisive


def _rewritten(layout: Layout, plan: Plan, scores: Scores) -> Iterator[dict[str, Any]]:
    """Rows before and after each generator, chosen by the hash of their ids, with their scores."""
    for name, verb in plan.generators.items():
        if not layout.rows(name).exists():
            continue
        before, after = read_rows(plan.dataset(name).from_, layout), read_rows(name, layout)
        made = pc.unique(after["id"].filter(pc.equal(after["source"], name))).to_pylist()
        chosen = sorted(made, key=lambda record_id: sha256_bytes(record_id.encode()))[:REWRITTEN]
        both = _both(before, chosen, name, plan)
        if chosen and all(_readable(table, layout, plan) for table in both.values()):
            changes = {key: pair for key, *pair in _scored(_both(before, made, name, plan), scores, plan)}
            yield {
                "dataset": name,
                "verb": verb.name,
                "rows": both,
                "made": len(made),
                "changes": {key: _means(*pair) for key, pair in changes.items()},
                "scores": [
                    {key: (was[place], now[place]) for key, was, now in _scored(both, scores, plan)}
                    for place in range(len(chosen))
                ],
            }


def _both(before: pa.Table, made: list[str], name: str, plan: Plan) -> dict[str, pa.Table]:
    """Rows of records of a generator, and those that they were made of."""
    ids = pa.array(made, pa.string())
    asked = pa.array(map(original_id, made), pa.string()) if plan.makes_variants(name) else ids
    return {
        "before": before.take(pc.index_in(asked, value_set=before["id"])),
        "after": pa.table([ids, pa.repeat(name, len(ids))], ROWS),
    }


def _scored(both: dict[str, pa.Table], scores: Scores, plan: Plan) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each score that is a number, before and after: of each row the mean of its values."""
    for operator in plan.configuration.operators:
        stats = operator_spec(plan.configuration.operators[operator].op).stats
        for stat in (stat for stat, kind in stats.items() if kind != "vector"):
            before, after = (_values(rows, operator, stat, scores) for rows in both.values())
            if before is not None and after is not None:
                yield str(StatKey(operator, stat if len(stats) > 1 else "")), before, after


def _values(rows: pa.Table, operator: str, stat: str, scores: Scores) -> np.ndarray | None:
    """A score of each row; None for one that a source lacks, or that is no number."""
    sources, found = rows["source"].to_numpy(), np.full(rows.num_rows, np.nan)
    for source in dict.fromkeys(sources.tolist()):
        table = scores.table(source, operator)
        values = None if table is None else values_of(stat, table[stat])
        if table is None or values is None or not values.numeric:
            return None
        mine = np.flatnonzero(sources == source)
        places = pc.index_in(rows["id"].take(pa.array(mine)), value_set=table["id"])
        found[mine] = row_means(values)[pc.fill_null(places, 0).to_numpy()]
    return found


def _means(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    known = np.isfinite(before) & np.isfinite(after)
    return {"before": float(before[known].mean()), "after": float(after[known].mean())} if known.any() else {}


def _readable(rows: pa.Table, layout: Layout, plan: Plan) -> bool:
    """Whether the records of the rows' sources lie on this machine."""
    sources = pc.unique(rows["source"]).to_pylist()
    return all(layout.records(source, shard).exists() for source in sources for shard in plan.shards(source))

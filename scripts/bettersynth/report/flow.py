"""The datasets as a graph: how many rows each has, and how many of them came along each edge."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json
from bettersynth.core.records import POOL
from bettersynth.pool.rows import read_rows
from bettersynth.report import charts
from bettersynth.workflow.plan import Plan


def flow(configuration: Configuration, layout: Layout, plan: Plan) -> dict[str, Any]:
    """`chart`, those that recipes train on marked, and `numbers`: a line for each edge."""
    trained: dict[str, list[str]] = {}
    for recipe, definition in configuration.recipes.items():
        trained.setdefault(definition.dataset, []).append(recipe)
    order = dict.fromkeys([POOL, *(step for name in configuration.datasets for step in plan.lineage(name))])
    nodes, numbers = [], []
    for name in order:
        card = _card(name, layout)
        node = None if name == POOL else configuration.datasets[name]
        parents = () if node is None else tuple(dict.fromkeys(node.parents))
        flows = _flows(name, parents, card, layout) if card else {}
        rows = f"{card['rows']:,} rows" if card else "not made yet"
        detail = "the raw pairs" if node is None else "; ".join(node.verb.brief().splitlines())
        if name in trained:
            detail += f"; trained by {', '.join(trained[name])}"
        told = {parent: f"{count:,}" for parent, count in flows.items() if count}
        nodes.append(charts.Node(name, rows, f"{detail}; {rows}", parents, name in trained, told))
        numbers += [[parent, name, flows.get(parent), card and card["rows"]] for parent in parents]
    head = ["from", "dataset", "rows from there", "rows"]
    return {"chart": charts.graph("Datasets and their parents", nodes), "numbers": [head, *numbers]}


def _card(name: str, layout: Layout) -> dict[str, Any] | None:
    path = layout.dataset_card(name)
    return read_json(path) if path.exists() else None


def _flows(name: str, parents: tuple[str, ...], card: dict[str, Any], layout: Layout) -> dict[str, int]:
    """Rows of a dataset by the parent that they came from, copies of a repeat left out; nothing for one not there.

    Of several parents, rows are those of the first that has the same record of the same source.
    """
    if not parents:
        return {}
    if len(parents) == 1:
        return {parents[0]: card["rows"] - card["ledger"]["added"]}
    if not all(layout.rows(one).exists() for one in (name, *parents)):
        return {}
    left = _pairs(read_rows(name, layout))
    flows = {}
    for parent in parents:
        found = pc.is_in(left, value_set=_pairs(read_rows(parent, layout)))
        flows[parent] = pc.sum(found).as_py() or 0
        left = left.filter(pc.invert(found))
    return flows


def _pairs(rows: pa.Table) -> pa.ChunkedArray:
    """Source and id of each row as one text."""
    return pc.binary_join_element_wise(rows["source"], rows["id"], "\0")

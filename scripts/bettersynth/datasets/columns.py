"""Scores of rows as columns: each stat of each operator that has scored all of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bettersynth.configuration.operators import operator_spec
from bettersynth.core.layout import Layout
from bettersynth.core.names import StatKey
from bettersynth.datasets.scores import load_scores
from bettersynth.datasets.values import Values, values_of
from bettersynth.workflow.plan import Plan, Scores


class Column(NamedTuple):
    """One stat of n rows."""

    key: StatKey
    """As a configuration writes it: the stat is left out where it is its operator's only one."""
    values: Values


class Columns(NamedTuple):
    """What is known of some rows, and which tables of scores it lacks."""

    found: list[Column]
    missing: list[Scores]

    @property
    def numbers(self) -> list[Column]:
        """Those that hold numbers."""
        return [column for column in self.found if column.values.numeric]


def columns_of(rows: pa.Table, layout: Layout, plan: Plan) -> Columns:
    """Every stat of the rows `(id, source)`, in the operators' order; vectors are left out.

    An operator that has not scored one of the rows' sources has no column. Raises ValueError for a stale score.
    """
    sources = pc.unique(rows["source"]).to_pylist()
    found, missing = [], []
    for name, operator in plan.configuration.operators.items():
        absent = [Scores(source, name) for source in sources if not layout.scores(source, name).exists()]
        missing += absent
        if not absent and rows.num_rows:
            kinds = operator_spec(operator.op).stats
            table = load_scores(rows, name, layout, plan)
            stats = [stat for stat in table.column_names if stat != "id" and kinds.get(stat) != "vector"]
            for stat in stats:
                key = StatKey(name, stat if len(kinds) > 1 else "")
                found.append(Column(key, values_of(str(StatKey(name, stat)), table[stat])))
    return Columns(found, missing)


def row_means(values: Values) -> npt.NDArray[np.float64]:
    """One number for each row: the mean of its values; NaN for a row without any, or with one that is no number."""
    means = np.full(len(values.counts), np.nan)
    present = np.flatnonzero(values.counts)
    if len(present):
        means[present] = np.add.reduceat(values.flat, values.starts[present]) / values.counts[present]
    return means

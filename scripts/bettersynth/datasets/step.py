"""What a verb works on: the rows of its parents, and the scores and records behind them."""

from __future__ import annotations

from functools import cached_property

import pyarrow as pa

from bettersynth.core.layout import Layout
from bettersynth.core.names import StatKey
from bettersynth.core.tables import read_table
from bettersynth.datasets.scores import load_scores, load_values
from bettersynth.datasets.values import Values
from bettersynth.pool.rows import load_records, read_rows
from bettersynth.workflow.plan import Plan


class Step:
    """One dataset in the making; reads only what is asked for."""

    def __init__(self, name: str, layout: Layout, plan: Plan) -> None:
        self.name = name
        self.layout = layout
        self.plan = plan

    def rows_of(self, dataset: str) -> pa.Table:
        """Rows `(id, source)` of a dataset that is made."""
        return read_rows(dataset, self.layout)

    @cached_property
    def rows(self) -> pa.Table:
        """Rows `(id, source)` of the dataset that `from` names."""
        return self.rows_of(self.plan.dataset(self.name).from_)

    @cached_property
    def others(self) -> dict[str, pa.Table]:
        """Rows of the other datasets that the verb names, in its order."""
        return {name: self.rows_of(name) for name in self.plan.dataset(self.name).verb.others()}

    def values(self, key: StatKey) -> Values:
        """The values of a score for every row of `rows`, in order; raises ValueError for a missing or stale score."""
        return load_values(self.rows, key, self.layout, self.plan)

    def tolerance(self, key: StatKey) -> float:
        """How much the score may differ between devices and precisions."""
        return self.plan.tolerance(key)

    def scores(self, operator: str) -> pa.Table:
        """All stats of an operator, `id` first, for every row of `rows`; raises ValueError when stale."""
        return load_scores(self.rows, operator, self.layout, self.plan)

    def operators(self) -> list[str]:
        """Operators whose scores the verb reads."""
        return self.plan.operators(self.name)

    def records(self) -> pa.Table:
        """The records of `rows`, in order: `id, source, text, images, image_root`."""
        return load_records(self.rows, self.layout, self.plan)

    def pool_shards(self) -> pa.Table:
        """`id` and `shard` of every record of the pool."""
        return read_table(self.layout.index, ["id", "shard"])

    def asked(self) -> list[pa.Table]:
        """Rows that were to be made anew on the way to each of `others`, but not already on the way to `from`."""
        plan = self.plan
        above = set(plan.lineage(plan.dataset(self.name).from_))
        steps = (step for other in self.others for step in plan.lineage(other))
        generators = [name for name in steps if name in plan.generators and name not in above]
        return [self.rows_of(plan.dataset(name).from_) for name in generators]

"""Rows of datasets that are not made yet: their verbs are applied to what is there, in memory, to tell what comes."""

from __future__ import annotations

import pyarrow as pa

from bettersynth.core.cached import cached_method
from bettersynth.core.records import POOL
from bettersynth.datasets.build import applied
from bettersynth.datasets.step import Step
from bettersynth.pool.rows import read_rows
from bettersynth.workflow.expected import Expected
from bettersynth.workflow.jobs import Jobs

MOST_SECONDS = 30
"""Verbs that take longer, as they state it themselves, are not tried: a dry run is asked often."""


class Trial:
    """Applies the verbs of one configuration's datasets without making anything."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.layout, self.plan = jobs.layout, jobs.plan

    def count(self, dataset: str) -> int | None:
        """How many rows a dataset would have if it were made now; see `rows`."""
        rows = self.rows(dataset)
        return None if rows is None else rows.num_rows

    @cached_method
    def rows(self, dataset: str) -> pa.Table | None:
        """The rows `(id, source)` that a dataset would have; None where jobs of other rules have to come before."""
        is_made = self.jobs.expected.card(dataset) is not None
        if dataset == POOL:
            is_made = is_made and all(map(self.jobs.fingerprints.is_ingested, self.plan.shards(POOL)))
        if is_made:
            return read_rows(dataset, self.layout)
        if dataset == POOL or not self._can_apply(dataset):
            return None
        return applied(self.plan.dataset(dataset).verb, _TrialStep(dataset, self)).rows

    def _can_apply(self, dataset: str) -> bool:
        node = self.plan.dataset(dataset)
        if node.verb.makes_records:
            return False
        read = [*node.parents, *(self.plan.asked(dataset) if node.verb.reads_asked else ())]
        if any(self.rows(parent) is None for parent in read):
            return False
        if any(not self.jobs.scores_of.is_current(*scores) for scores in self.plan.scores(dataset)):
            return False
        rows = self.rows(node.from_)
        return rows is not None and rows.num_rows / node.verb.cost.per_second < MOST_SECONDS


def counted_rows(jobs: Jobs) -> Expected:
    """The rows that a dry run tells: those of datasets that are not made yet are counted where that can be done."""
    jobs.expected.apply_by(Trial(jobs).count)
    return jobs.expected


class _TrialStep(Step):
    """A dataset in the making whose parents need not be made."""

    def __init__(self, name: str, trial: Trial) -> None:
        super().__init__(name, trial.layout, trial.plan)
        self._trial = trial

    def rows_of(self, dataset: str) -> pa.Table:
        """Rows of a dataset, made or not; there are some to be had."""
        rows = self._trial.rows(dataset)
        assert rows is not None, f"`{dataset}` was to be had before its verb was applied"
        return rows

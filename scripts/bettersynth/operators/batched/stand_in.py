"""Batched filters in the place of Data-Juicer's own, in its executors."""

from __future__ import annotations

from typing import Any

from bettersynth.configuration.operators import operator_spec
from bettersynth.configuration.pool import Reading, Scoring
from bettersynth.core.records import Record
from bettersynth.operators.batched.errors import RecordError
from bettersynth.operators.batched.filters import BatchedFilter, Fields
from bettersynth.operators.batched.scorer import BatchScorer


class AsGiven:
    """Paths of samples in Data-Juicer's executors: they are what they say."""

    def path(self, image_root: str, relative: str) -> str:
        return relative


def stand_in(name: str) -> type:
    """A subclass of Data-Juicer's filter of this name whose stats are computed in batches, for its executors."""
    kind = operator_spec(name).kind_class
    assert kind is not None
    return type(kind.__name__, (StandIn, kind), {}) if issubclass(kind, BatchedFilter) else kind


class StandIn:
    """Data-Juicer's entry, over a batched filter; mixed in before it."""

    image_bytes_key: str

    def compute_stats_batched(
        self, samples: dict[str, list[Any]], rank: int | None = None, context: bool = False
    ) -> dict[str, list[Any]]:
        """Fill in the stats of samples that have none yet.

        Samples that carry their images as bytes, and fused filters, which share decoded images, are left to upstream.
        """
        if context or self.image_bytes_key in samples:
            return super().compute_stats_batched(samples, rank=rank, context=context)  # type: ignore[misc]
        return fill_in(self, samples, rank)


def fill_in(kind: Any, samples: dict[str, list[Any]], rank: int | None) -> dict[str, list[Any]]:
    """Compute a filter's stats for samples in Data-Juicer's form, where they have none yet."""
    if not hasattr(kind, "model"):
        kind.load("auto", rank)
    due = [number for number, stats in enumerate(samples[Fields.stats]) if kind.stat not in stats]
    images = samples.get(kind.image_key) or [[] for _ in samples[Fields.stats]]
    records = [Record(str(number), samples[kind.text_key][number], images[number] or []) for number in due]
    scorer = BatchScorer(
        {kind._name: kind},
        {},
        {kind._name: (kind.stat,)},
        reading=Reading(deep_grey="clip"),  # as the stock filter, whose place this one takes
        settings=Scoring(workers=0),
        loading={kind._name: 0.0},
    )
    scores = scorer.score(records, AsGiven())[kind._name]
    for record, detail in (scores.unreadable | scores.failed).items():
        raise RecordError(kind._name, record, detail)
    for number, stats in zip(due, scores.stats, strict=True):
        samples[Fields.stats][number].update(stats)
    return samples

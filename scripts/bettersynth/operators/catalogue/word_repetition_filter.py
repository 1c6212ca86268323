"""Repeated words."""

from __future__ import annotations

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import OperatorSpec, Parameter

SPEC = OperatorSpec(
    "word_repetition_filter",
    "Share of word n-grams that occur more than once.",
    stats={"word_rep_ratio": "number"},
    parameters={"rep_len": Parameter(10, 1)},
    thresholds={"min_ratio": 0.0, "max_ratio": 0.5},
    cost=Cost(10_000),
)

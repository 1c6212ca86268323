"""Repeated characters."""

from __future__ import annotations

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import OperatorSpec, Parameter

SPEC = OperatorSpec(
    "character_repetition_filter",
    "Share of the most repeated character n-grams.",
    reads_text=True,
    stats={"char_rep_ratio": "number"},
    parameters={"rep_len": Parameter(10, 1)},
    thresholds={"min_ratio": 0.0, "max_ratio": 0.5},
    cost=Cost(5_000),
)

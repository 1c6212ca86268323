"""Repeated words."""

from __future__ import annotations

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import WORD_MODEL, OperatorSpec, Parameter

SPEC = OperatorSpec(
    "word_repetition_filter",
    "Share of word n-grams that occur more than once.",
    reads_text=True,
    stats={"word_rep_ratio": "number"},
    model_lookup="{model}",
    model_optional=True,
    model_parameter="tokenization",
    parameters={**WORD_MODEL, "rep_len": Parameter(10, 1)},
    thresholds={"min_ratio": 0.0, "max_ratio": 0.5},
    cost=Cost(10_000),
)

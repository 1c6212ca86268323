"""The length of a text."""

from __future__ import annotations

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import OperatorSpec

SPEC = OperatorSpec(
    "text_length_filter",
    "Characters of the text, special tokens included.",
    stats={"text_len": "integer"},
    thresholds={"min_len": 10, "max_len": None},
    cost=Cost(50_000),
)

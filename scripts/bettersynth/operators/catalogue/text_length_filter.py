"""The length of a text."""

from __future__ import annotations

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import OperatorSpec

SPEC = OperatorSpec(
    "text_length_filter",
    "Characters of the text, Data-Juicer's tokens of images and ends included, unless `text: caption`.",
    reads_text=True,
    stats={"text_len": "integer"},
    thresholds={"min_len": 10, "max_len": None},
    cost=Cost(50_000),
)

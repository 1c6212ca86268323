"""Shapes of images."""

from __future__ import annotations

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import ANY, OperatorSpec

SPEC = OperatorSpec(
    "image_aspect_ratio_filter",
    "Width divided by height.",
    stats={"aspect_ratios": "numbers"},
    decodes=True,
    thresholds={"min_ratio": 0.333, "max_ratio": 3.0, **ANY},
    cost=Cost(2_000),
)

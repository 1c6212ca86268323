"""Sizes of image files."""

from __future__ import annotations

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import ANY, OperatorSpec

SPEC = OperatorSpec(
    "image_size_filter",
    "Size of the image file in bytes.",
    stats={"image_sizes": "integers"},
    thresholds={"min_size": "0", "max_size": "1TB", **ANY},
    cost=Cost(10_000),
)

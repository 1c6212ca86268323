"""Width and height of images."""

from __future__ import annotations

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import ANY, OperatorSpec

SPEC = OperatorSpec(
    "image_shape_filter",
    "Width and height in pixels, EXIF rotation applied.",
    stats={"image_width": "integers", "image_height": "integers"},
    decodes=True,
    thresholds={"min_width": 1, "max_width": None, "min_height": 1, "max_height": None, **ANY},
    cost=Cost(2_000),
)

"""The probability of a watermark."""

from __future__ import annotations

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import ANY, OperatorSpec

SPEC = OperatorSpec(
    "image_watermark_filter",
    "Probability of a watermark.",
    stats={"image_watermark_prob": "numbers"},
    kind="bettersynth.operators.batched.filters:BatchedWatermark",
    decodes=True,
    model_argument="hf_watermark_model",
    device="gpu",
    tolerance=1e-3,
    thresholds={"prob_threshold": 0.8, **ANY},
    keeps={"prob_threshold": ("image_watermark_prob", "max")},
    cost=Cost(2_800, 30, measured=("scoring", "watermark_pairs_per_s")),
)

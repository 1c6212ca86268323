"""The probability that an image is not safe for work."""

from __future__ import annotations

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import ANY, OperatorSpec

SPEC = OperatorSpec(
    "image_nsfw_filter",
    "Probability that the image is not safe for work.",
    stats={"image_nsfw_score": "numbers"},
    kind="bettersynth.operators.batched.filters:BatchedNSFW",
    decodes=True,
    model_argument="hf_nsfw_model",
    device="gpu",
    tolerance=1e-3,
    thresholds={"min_score": 0.0, "max_score": 0.5, **ANY},
    cost=Cost(2_800, 30, measured=("scoring", "nsfw_pairs_per_s")),
)

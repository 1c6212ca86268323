"""BLIP's probability that image and caption belong together."""

from __future__ import annotations

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import ANY, PAIR_PARAMETERS, OperatorSpec

SPEC = OperatorSpec(
    "image_text_matching_filter",
    "BLIP's probability that image and caption belong together.",
    stats={"image_text_matching_score": "numbers"},
    kind="bettersynth.operators.batched.filters:BatchedMatching",
    decodes=True,
    model_argument="hf_blip",
    device="gpu",
    parameters=PAIR_PARAMETERS,
    tolerance=1e-3,
    thresholds={"min_score": 0.003, "max_score": 1.0, **ANY},
    cost=Cost(1_100, 30, measured=("scoring", "matching_pairs_per_s")),
)

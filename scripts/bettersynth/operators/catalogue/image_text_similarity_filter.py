"""CLIP's similarity of image and caption."""

from __future__ import annotations

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import ANY, PAIR_PARAMETERS, OperatorSpec

SPEC = OperatorSpec(
    "image_text_similarity_filter",
    "CLIP's similarity of image and caption: logits / 100, a cosine for the published checkpoints.",
    stats={"image_text_similarity": "numbers"},
    kind="bettersynth.operators.batched.filters:BatchedSimilarity",
    decodes=True,
    model_argument="hf_clip",
    device="gpu",
    parameters=PAIR_PARAMETERS,
    tolerance=1e-3,
    thresholds={"min_score": 0.1, "max_score": 1.0, **ANY},
    cost=Cost(2_800, 30, measured=("scoring", "similarity_pairs_per_s")),
)

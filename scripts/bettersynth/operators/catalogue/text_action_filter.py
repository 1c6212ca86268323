"""Verbs of a caption."""

from __future__ import annotations

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import OperatorSpec

SPEC = OperatorSpec(
    "text_action_filter",
    "Verbs of the caption, as spaCy tags them.",
    stats={"num_action": "integer"},
    kind="bettersynth.operators.batched.filters:BatchedTextAction",
    # It opens the folder of that stem
    model_lookup="{model}.tar.gz",
    tagger="model",
    thresholds={"min_action_num": 1},
    cost=Cost(700),
)

"""Captions as vectors, for `cluster`."""

from __future__ import annotations

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import OperatorSpec

SPEC = OperatorSpec(
    "text_embedding",
    "The caption's place in the space of a sentence encoder (BGE and its like) or of a CLIP's text tower, as a "
    "vector of bytes; ours, for `cluster`.",
    stats={"text_embedding": "vector"},
    kind="bettersynth.operators.own.text_embedding:TextEmbedding",
    ours=True,
    model_argument="folder",
    cost=Cost(60, 20, 300),
)

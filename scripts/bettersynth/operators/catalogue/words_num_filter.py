"""Words of a text."""

from __future__ import annotations

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import OperatorSpec

SPEC = OperatorSpec(
    "words_num_filter",
    "Words of the text; Data-Juicer counts the image and end tokens too, as one word each.",
    stats={"num_words": "integer"},
    thresholds={"min_num": 10, "max_num": None},
    cost=Cost(10_000),
)

"""Words of a text."""

from __future__ import annotations

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import WORD_MODEL, OperatorSpec

SPEC = OperatorSpec(
    "words_num_filter",
    "Words of the text. Data-Juicer counts tokens of images and ends too, as one word each, unless `text: caption`. "
    "Text without blanks is one word, unless `tokenization` cuts it by the SentencePiece model of `lang`.",
    reads_text=True,
    stats={"num_words": "integer"},
    model_lookup="{model}",
    model_optional=True,
    model_parameter="tokenization",
    parameters=WORD_MODEL,
    thresholds={"min_num": 10, "max_num": None},
    cost=Cost(10_000),
)

"""The language of a text."""

from __future__ import annotations

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import OperatorSpec

SPEC = OperatorSpec(
    "language_id_score_filter",
    "fastText's language of the text and its confidence. Data-Juicer has it read the tokens of images and ends, by "
    "which short captions are taken for other languages; `text: caption` reads the caption alone.",
    reads_text=True,
    stats={"lang": "word", "lang_score": "number"},
    model_lookup="{model}",
    thresholds={"lang": "", "min_score": 0.8},
    keeps={"lang": ("lang", "one_of")},
    cost=Cost(10_000, bytes=30),
)

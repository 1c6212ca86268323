"""A toy operator, all in one file: how many vowels a text has, and how bright its images are."""

from __future__ import annotations

import numpy as np

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import OperatorSpec, Parameter


class ToyOperator:
    """Counts letters, and takes the mean of grey pixels."""

    def __init__(self, letters: str) -> None:
        self.letters = letters

    def stats(self, texts, images, decoded):
        """Stats of each record from its text and its pictures by path."""
        return [
            {
                "vowels": sum(text.count(letter) for letter in self.letters),
                "brightness": [float(np.asarray(pictures[path].convert("L")).mean()) for path in paths],
            }
            for text, paths, pictures in zip(texts, images, decoded, strict=True)
        ]


SPEC = OperatorSpec(
    "toy_operator",
    "Letters of the text that are vowels, and the brightness of its images.",
    stats={"vowels": "integer", "brightness": "numbers"},
    kind=f"{__name__}:ToyOperator",
    ours=True,
    decodes=True,
    parameters={"letters": Parameter("aeiou")},
    cost=Cost(123),
)

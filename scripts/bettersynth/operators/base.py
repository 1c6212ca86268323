"""What the operators of every kind have in common."""

from __future__ import annotations

import os
from typing import Any, Protocol

from PIL import Image

from bettersynth.configuration.operators import operator_spec
from bettersynth.configuration.pool import Model, Operator
from bettersynth.core.resources import staged
from bettersynth.operators.model_folder import existing

Stats = dict[str, Any]


class Paths(Protocol):
    """Finds a record's image (`bettersynth.pool.images.ImageRoots`)."""

    def path(self, image_root: str, relative: str) -> str | os.PathLike[str]:
        """The file; raises ImageProblem."""


class RecordOperator(Protocol):
    """An operator that needs no device: its stats are made where the image is decoded."""

    decodes: bool
    """As its specification says."""

    def stats(self, texts: list[str], images: list[list[str]], decoded: list[dict[str, Image.Image]]) -> list[Stats]:
        """The stats of each record; `decoded` holds its images by path when the operator `decodes`."""


def load_own(operator: Operator, model: Model | None) -> RecordOperator:
    """An operator that is none of Data-Juicer's. Raises FileNotFoundError or ValueError when its model is not there."""
    spec = operator_spec(operator.op)
    for name in spec.resources:
        staged(name)
    arguments = spec.completed(operator.parameters)
    if spec.model_argument:
        arguments[spec.model_argument] = existing(model)
    assert spec.kind_class is not None
    made: RecordOperator = spec.kind_class(**arguments)
    made.decodes = spec.decodes
    return made

"""What the operators of every kind have in common."""

from __future__ import annotations

import os
from typing import Any, Protocol

from PIL import Image

Stats = dict[str, Any]


class Paths(Protocol):
    """Finds a record's image (`bettersynth.pool.images.ImageRoots`)."""

    def path(self, image_root: str, relative: str) -> str | os.PathLike[str]:
        """The file; raises ImageProblem."""


class RecordOperator(Protocol):
    """An operator that needs no device: its stats are made where the image is decoded."""

    decodes: bool

    def stats(self, texts: list[str], images: list[list[str]], decoded: list[dict[str, Image.Image]]) -> list[Stats]:
        """The stats of each record; `decoded` holds its images by path when the operator `decodes`."""

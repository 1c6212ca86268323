"""Vectors as bytes: whole numbers of at most 127, whose directions are all that counts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LARGEST = 127

Vectors = npt.NDArray[np.int8]


def as_bytes(vectors: npt.NDArray[np.generic]) -> Vectors:
    """Each vector (last axis) scaled so that its largest number is 127, and rounded; direction is all that counts."""
    largest = np.abs(vectors).max(axis=-1, keepdims=True)
    return np.rint(vectors * (LARGEST / np.maximum(largest, np.finfo(np.float32).tiny))).astype(np.int8)

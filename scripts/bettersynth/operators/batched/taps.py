"""Taps: which pixels of a picture make one of its smaller copy, and with which weights."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL.Image import Resampling

BITS = 22


HALF = 1 << (BITS - 1)
"""Where a fixed-point sum begins, which rounds it."""


MOST_TAPS = 1 << 25
"""Numbers of taps that a device keeps, 128 MB: some 8,000 lengths of an axis."""


SUPPORT = {Resampling.BILINEAR: 1.0, Resampling.BICUBIC: 2.0}
"""Half the width of each filter that is implemented here, in pixels."""


Ints = npt.NDArray[np.int64]


class Axis(NamedTuple):
    """What becomes of one axis of a picture: resized to `size`, of which `kept` pixels from `first` on are kept."""

    size: int
    first: int
    kept: int
    flip: bool = False


class Taps(NamedTuple):
    """For each target pixel, the source pixels it is made of and their weights: both `[targets, taps]`."""

    sources: Ints
    weights: npt.NDArray[np.int32]


def taps(length: int, axis: Axis, resample: int) -> Taps:
    """The taps of an axis of `length` pixels: `precompute_coeffs` and `normalize_coeffs_8bpc` of Pillow."""
    scale = length / axis.size
    stretch = max(scale, 1.0)
    support = SUPPORT[Resampling(resample)] * stretch
    centre = (np.arange(axis.first, axis.first + axis.kept)[:, None] + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), length)
    sources = first + np.arange((last - first).max())
    shape = _triangle if resample == Resampling.BILINEAR else _cubic
    weights = np.where(sources < last, shape(np.abs((sources - centre + 0.5) * (1.0 / stretch))), 0.0)
    weights /= np.add.accumulate(weights, axis=1)[:, -1:]  # summed one by one, as Pillow does
    fixed = np.trunc(weights * (1 << BITS) + np.where(weights < 0, -0.5, 0.5)).astype(np.int32)
    sources = np.minimum(sources, length - 1)
    return Taps(length - 1 - sources if axis.flip else sources, fixed)


def _triangle(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(x < 1.0, 1.0 - x, 0.0)


def _cubic(x: npt.NDArray[np.float64], a: float = -0.5) -> npt.NDArray[np.float64]:
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


class Lines(NamedTuple):
    """Lines of items that are resized, some of each picture."""

    table: torch.Tensor
    """`[7, pictures]`: the item with which a picture's first line begins, items from there to the next line's, items
    from one of a line to its next, lines, lines of all pictures before, place of its taps, and their number."""
    total: int
    """Lines of all pictures."""
    longest: int
    """Lines of the picture that has most."""
    taps: int
    """The largest number of taps."""
    targets: int
    """What each line becomes."""

    @classmethod
    def of(cls, begins: Ints, apart: Ints, steps: Ints, counts: Ints, taps: Ints, targets: int) -> Lines:
        """All but `taps`, which `_Table.places` gives, are `[pictures]`."""
        rows = np.stack([begins, apart, steps, counts, counts.cumsum() - counts, *taps])
        return cls(torch.from_numpy(rows), int(counts.sum()), int(counts.max()), int(taps[1].max()), targets)

"""Pillow's resize, bit for bit, on the device: pictures of any sizes, all of them in a few large steps.

Resizing costs a processor more than decoding does, and processors are what a GPU waits for. Pillow (Resample.c) resizes
one axis, then the other, in 22-bit fixed-point numbers and rounds to bytes after each; integers give the same bytes on
any device. Which axis comes first is Pillow's own choice and differs between its versions: it is asked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from random import Random
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from PIL.Image import Resampling
from torch.nn.functional import pad

logger = logging.getLogger(__name__)

BITS = 22
HALF = 1 << (BITS - 1)
"""Where a fixed-point sum begins, which rounds it."""
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


@lru_cache(maxsize=4096)
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


@lru_cache(maxsize=4096)
def columns_first(length: tuple[int, int], size: tuple[int, int], resample: int) -> bool:
    """Whether Pillow resizes columns before rows for a picture of this `(height, width)`; found by trying.

    No version does unless the height shrinks.
    """
    if length[0] <= size[0]:
        return False
    noise = Image.frombytes("L", length[::-1], Random(0).randbytes(length[0] * length[1]))
    rows_first = noise.resize((size[1], length[0]), resample).resize(size[::-1], resample)
    return noise.resize(size[::-1], resample).tobytes() != rows_first.tobytes()


class Picture(NamedTuple):
    """A picture in a buffer of pixels, row after row, and what is to become of it."""

    offset: int
    height: int
    width: int
    down: Axis
    across: Axis
    columns_first: bool


def resize(buffer: torch.Tensor, pictures: Sequence[Picture], resample: int) -> torch.Tensor:
    """The pictures of the uint8 `buffer` `[pixels, 3]`, resized: uint8 `[pictures, height, width, 3]`.

    All keep equally many pixels of each axis.
    """
    by_order = [[at for at, one in enumerate(pictures) if one.columns_first == order] for order in (False, True)]
    if all(by_order):
        made = torch.empty(
            (len(pictures), pictures[0].down.kept, pictures[0].across.kept, 3),
            dtype=torch.uint8,
            device=buffer.device,
        )
        for some in by_order:
            made[some] = resize(buffer, [pictures[at] for at in some], resample)
        return made
    device = buffer.device
    down, downs = _stacked(device, [(one.height, one.down) for one in pictures], resample)
    across, acrosses = _stacked(device, [(one.width, one.across) for one in pictures], resample)
    offsets, heights, widths = np.array([one[:3] for one in pictures]).T
    once = np.ones_like(offsets)
    if pictures[0].columns_first:
        first = _weighed(buffer, _lines(device, offsets, once, widths, widths, downs), down)
        piles = _lines(device, widths.cumsum() - widths, once, once, once, acrosses)
        return _weighed(first.flatten(1), piles, across).unflatten(2, first.shape[1:]).transpose(1, 2)
    first = _weighed(buffer, _lines(device, offsets, widths, once, heights, acrosses), across)
    piles = _lines(device, heights.cumsum() - heights, once, once, once, downs)
    return _weighed(first.flatten(1), piles, down).unflatten(2, first.shape[1:])


class Lines(NamedTuple):
    """Lines of items that are resized; each tensor is `[lines]`."""

    begins: torch.Tensor
    """Item with which a line begins."""
    steps: torch.Tensor
    """Items from one of a line to its next."""
    taps: torch.Tensor
    """Which of several taps resize it."""


def _lines(device: torch.device, begins: Ints, apart: Ints, steps: Ints, counts: Ints, taps: Ints) -> Lines:
    """`counts` lines of each picture, of which one begins `apart` items after the other; all arguments `[pictures]`."""
    within = np.arange(counts.sum()) - (counts.cumsum() - counts).repeat(counts)
    lines = np.stack([begins.repeat(counts) + apart.repeat(counts) * within, steps.repeat(counts), taps.repeat(counts)])
    made = torch.from_numpy(lines)
    return Lines(*(made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made))


def _weighed(items: torch.Tensor, lines: Lines, taps: Weighed) -> torch.Tensor:
    """Weighed sums of the items of each line: uint8 `[lines, targets, width]` from uint8 `[items, width]`."""
    if items.is_cuda and (fused := _fused()):
        return fused(items, lines, taps)
    sums = torch.full(
        (len(lines.begins), taps.sources.shape[2], items.shape[1]), HALF, dtype=torch.int32, device=items.device
    )
    for sources, weights in zip(*taps, strict=True):
        chosen = lines.begins[:, None] + lines.steps[:, None] * sources[lines.taps]
        found = items.index_select(0, chosen.flatten()).view(sums.shape)
        sums.addcmul_(found, weights[lines.taps][..., None])
    return sums.bitwise_right_shift_(BITS).clamp_(0, 255).to(torch.uint8)  # Pillow's `clip8`


@cache
def _fused() -> Callable[[torch.Tensor, Lines, Weighed], torch.Tensor] | None:
    """The same in one kernel; None, with a word in the log, where Triton cannot make it."""
    try:
        from bettersynth.operators.batched.resize_kernel import weighed

        nothing = torch.zeros(1, 1, 1, dtype=torch.int64, device="cuda")
        weighed(nothing[0].byte(), Lines(*3 * [nothing[0, 0]]), Weighed(nothing, nothing.int()))
    except Exception as error:  # no Triton, no C compiler for it, no folder it may write to, …
        logger.warning("pictures are resized by many small kernels instead of one, which is slower: %s", error)
        return None
    return weighed


class Weighed(NamedTuple):
    """Taps on the device: `[taps, targets]` of one axis, `[taps, axes, targets]` of several."""

    sources: torch.Tensor
    weights: torch.Tensor


def _stacked(device: torch.device, axes: Sequence[tuple[int, Axis]], resample: int) -> tuple[Weighed, Ints]:
    """The taps of all different axes, and the number of each axis among them."""
    numbers = {axis: number for number, axis in enumerate(dict.fromkeys(axes))}
    return _different(device, tuple(numbers), resample), np.array([numbers[axis] for axis in axes])


@lru_cache(maxsize=64)
def _different(device: torch.device, axes: tuple[tuple[int, Axis], ...], resample: int) -> Weighed:
    """Axes with fewer taps than others have some that weigh nothing."""
    each = [_taps_on(device, *axis, resample) for axis in axes]
    most = max(len(one.weights) for one in each)

    def stack(parts: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return torch.stack([pad(part, (0, 0, 0, most - len(part))) for part in parts], 1)

    return Weighed(*map(stack, zip(*each, strict=True)))


@lru_cache(maxsize=4096)
def _taps_on(device: torch.device, length: int, axis: Axis, resample: int) -> Weighed:
    return Weighed(*(torch.from_numpy(part.T.copy()).to(device) for part in taps(length, axis, resample)))

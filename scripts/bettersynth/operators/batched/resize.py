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


class Axis(NamedTuple):
    """What becomes of one axis of a picture: resized to `size`, of which `kept` pixels from `first` on are kept."""

    size: int
    first: int
    kept: int
    flip: bool = False


class Taps(NamedTuple):
    """For each target pixel, the source pixels it is made of and their weights: both `[targets, taps]`."""

    sources: npt.NDArray[np.int64]
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
    noise = Image.frombytes("RGB", length[::-1], Random(0).randbytes(3 * length[0] * length[1]))
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
    down = _stacked([_taps_on(device, one.height, one.down, resample) for one in pictures])
    across = _stacked([_taps_on(device, one.width, one.across, resample) for one in pictures])
    offsets, heights, widths = torch.tensor([one[:3] for one in pictures]).to(device, non_blocking=True).T
    if pictures[0].columns_first:
        columns = _lines(offsets, torch.ones_like(widths), widths, widths, sum(one.width for one in pictures))
        return _both(buffer, columns, widths, down, across).transpose(1, 2)
    rows = _lines(offsets, widths, torch.ones_like(widths), heights, sum(one.height for one in pictures))
    return _both(buffer, rows, heights, across, down)


class Lines(NamedTuple):
    """Lines of items that are resized alike; each tensor is `[lines]`."""

    begins: torch.Tensor
    """Item with which a line begins."""
    steps: torch.Tensor
    """Items from one of a line to its next."""
    pictures: torch.Tensor
    """Picture that a line is of."""


def _lines(offsets: torch.Tensor, apart: torch.Tensor, steps: torch.Tensor, counts: torch.Tensor, total: int) -> Lines:
    """All pictures' lines of pixels, `counts` of each and `total` together; a picture's begin `apart` pixels apart."""
    numbers = torch.arange(len(counts), device=counts.device)
    pictures = numbers.repeat_interleave(counts, output_size=total)
    within = torch.arange(total, device=counts.device) - (counts.cumsum(0) - counts)[pictures]
    return Lines(offsets[pictures] + apart[pictures] * within, steps[pictures], pictures)


def _both(buffer: torch.Tensor, lines: Lines, counts: torch.Tensor, along: Weighed, across: Weighed) -> torch.Tensor:
    """Resize along the lines, then across them: uint8 `[pictures, targets across, targets along, 3]`."""
    first = _weighed(buffer, lines, along)
    numbers = torch.arange(len(counts), device=buffer.device)
    piles = Lines(counts.cumsum(0) - counts, torch.ones_like(numbers), numbers)
    return _weighed(first.flatten(1), piles, across).unflatten(2, first.shape[1:])


def _weighed(items: torch.Tensor, lines: Lines, taps: Weighed) -> torch.Tensor:
    """Weighed sums of the items of each line: uint8 `[lines, targets, width]` from uint8 `[items, width]`."""
    if items.is_cuda and (fused := _fused()):
        return fused(items, lines, taps)
    sums = torch.full(
        (len(lines.begins), taps.sources.shape[2], items.shape[1]), HALF, dtype=torch.int32, device=items.device
    )
    for sources, weights in zip(*taps, strict=True):
        chosen = lines.begins[:, None] + lines.steps[:, None] * sources[lines.pictures]
        found = items.index_select(0, chosen.flatten()).view(sums.shape)
        sums.addcmul_(found, weights[lines.pictures][..., None])
    return sums.bitwise_right_shift_(BITS).clamp_(0, 255).to(torch.uint8)  # Pillow's `clip8`


@cache
def _fused() -> Callable[[torch.Tensor, Lines, Weighed], torch.Tensor] | None:
    """The same in one kernel, seven times as fast; None, with a word in the log, where Triton cannot make it."""
    try:
        from bettersynth.operators.batched.resize_kernel import weighed

        nothing = torch.zeros(1, 1, 1, dtype=torch.int64, device="cuda")
        weighed(nothing[0].byte(), Lines(*3 * [nothing[0, 0]]), Weighed(nothing, nothing.int()))
    except Exception as error:  # no Triton, no C compiler for it, no folder it may write to, …
        logger.warning("pictures are resized by many kernels instead of one, which costs a tenth of scoring: %s", error)
        return None
    return weighed


class Weighed(NamedTuple):
    """Taps on the device: `[taps, targets]` of one picture's axis, `[taps, pictures, targets]` of several pictures'."""

    sources: torch.Tensor
    weights: torch.Tensor


@lru_cache(maxsize=4096)
def _taps_on(device: torch.device, length: int, axis: Axis, resample: int) -> Weighed:
    return Weighed(*(torch.from_numpy(part.T.copy()).to(device) for part in taps(length, axis, resample)))


def _stacked(each: list[Weighed]) -> Weighed:
    """Those that a picture has fewer of weigh nothing."""
    most = max(len(one.weights) for one in each)

    def stack(parts: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return torch.stack([part if len(part) == most else pad(part, (0, 0, 0, most - len(part))) for part in parts], 1)

    return Weighed(*map(stack, zip(*each, strict=True)))

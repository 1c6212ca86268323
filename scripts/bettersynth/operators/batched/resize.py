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
from scipy.sparse import coo_array

from bettersynth.operators.batched.taps import BITS, HALF, MOST_TAPS, Axis, Ints, Lines, Taps, taps

logger = logging.getLogger(__name__)

AT_ONCE = 1 << 23
"""Bytes that are numbers of four bytes at one time where no device resizes."""


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


class Plan(NamedTuple):
    """What is to become of the pictures of one size."""

    height: int
    width: int
    down: Axis
    across: Axis
    columns_first: bool


class Picture(NamedTuple):
    """A picture in a buffer of pixels, row after row from pixel `offset` on."""

    offset: int
    plan: Plan


def resize_part(pixels: npt.NDArray[np.uint8], plan: Plan, resample: int) -> npt.NDArray[np.uint8]:
    """`resize` of one picture `[height, width, 3]`, without a device: of the picture and of what comes between only
    what the kept pixels are made of, however long the picture and what it would be resized to."""
    down, across = taps(plan.height, plan.down, resample), taps(plan.width, plan.across, resample)
    rows, columns = (slice(one.sources.min(), one.sources.max() + 1) for one in (down, across))
    return weighed(
        pixels[rows, columns],
        down._replace(sources=down.sources - rows.start),
        across._replace(sources=across.sources - columns.start),
        columns_first=plan.columns_first,
    )


def weighed(pixels: npt.NDArray[np.uint8], down: Taps, across: Taps, *, columns_first: bool) -> npt.NDArray[np.uint8]:
    """The picture `[height, width, 3]` with these taps of its rows (`down`) and columns, as Pillow rounds."""
    for axis in (0, 1) if columns_first else (1, 0):
        pixels = np.moveaxis(_weighed_lines(np.moveaxis(pixels, axis, 0), (down, across)[axis]), 0, axis)
    return pixels


def _weighed_lines(lines: npt.NDArray[np.uint8], axis: Taps) -> npt.NDArray[np.uint8]:
    """Weighed sums of lines: uint8 `[targets, …]` from uint8 `[sources, …]`."""
    targets = np.broadcast_to(np.arange(len(axis.sources))[:, None], axis.sources.shape)
    places = targets.ravel(), axis.sources.ravel()
    weights = coo_array((axis.weights.ravel(), places), (len(targets), len(lines))).tocsr()
    flat = lines.reshape(len(lines), -1)
    made = np.empty((len(targets), flat.shape[1]), np.uint8)
    step = max(1, AT_ONCE // max(len(targets), len(lines)))
    for start in range(0, flat.shape[1], step):
        sums = weights @ flat[:, start : start + step].astype(np.int32) + HALF
        made[:, start : start + step] = np.clip(sums >> BITS, 0, 255)
    return made.reshape(len(targets), *lines.shape[1:])


def resize(buffer: torch.Tensor, pictures: Sequence[Picture], resample: int) -> torch.Tensor:
    """The pictures of the uint8 `buffer` `[pixels, 3]`, resized: uint8 `[pictures, height, width, 3]`.

    All keep equally many pixels of each axis.
    """
    by_order = [[at for at, one in enumerate(pictures) if one.plan.columns_first == order] for order in (False, True)]
    if all(by_order):
        made = torch.empty(
            (len(pictures), pictures[0].plan.down.kept, pictures[0].plan.across.kept, 3),
            dtype=torch.uint8,
            device=buffer.device,
        )
        for some in by_order:
            made[some] = resize(buffer, [pictures[at] for at in some], resample)
        return made
    plans = [picture.plan for picture in pictures]
    down, across = plans[0].down.kept, plans[0].across.kept
    table = _table(buffer.device, resample)
    places = table.places([(one.height, one.down) for one in plans] + [(one.width, one.across) for one in plans])
    downs, acrosses = places[:, : len(plans)], places[:, len(plans) :]
    offsets = np.array([picture.offset for picture in pictures])
    heights, widths = np.array([plan[:2] for plan in plans]).T
    once = np.ones_like(offsets)
    if plans[0].columns_first:
        first = Lines.of(offsets, once, widths, widths, downs, down)
        piles = Lines.of(widths.cumsum() - widths, once, once, once, acrosses, across)
    else:
        first = Lines.of(offsets, widths, once, heights, acrosses, across)
        piles = Lines.of(heights.cumsum() - heights, once, once, once, downs, down)
    first, piles = _on_device(buffer.device, first, piles)
    half = _weighed(buffer, first, table.memory)
    made = _weighed(half.flatten(1), piles, table.memory).unflatten(2, half.shape[1:])
    return made.transpose(1, 2) if plans[0].columns_first else made


def _on_device(device: torch.device, *lines: Lines) -> list[Lines]:
    """The lines with their tables on the device, by one copy that is not waited for."""
    tables = torch.stack([one.table for one in lines])
    if device.type == "cuda":
        tables = tables.pin_memory().to(device, non_blocking=True)
    return [one._replace(table=table) for one, table in zip(lines, tables, strict=True)]


def _weighed(items: torch.Tensor, lines: Lines, memory: torch.Tensor) -> torch.Tensor:
    """Weighed sums of the items of each line: uint8 `[lines, targets, width]` from uint8 `[items, width]`.

    `memory` is `_Table`'s, whose places the lines name.
    """
    if items.is_cuda and (fused := _fused()):
        return fused(items, lines, memory)
    counts = lines.table[3]
    begins, apart, steps, _, before, places, taps = lines.table.repeat_interleave(counts, 1, output_size=lines.total)
    begins = begins + apart * (torch.arange(lines.total, device=items.device) - before)
    target = torch.arange(lines.targets, device=items.device)
    sums = torch.full((lines.total, lines.targets, items.shape[1]), HALF, dtype=torch.int32, device=items.device)
    for tap in range(lines.taps):
        there = tap < taps
        at = (places + tap * lines.targets * there)[:, None] + target
        chosen = begins[:, None] + steps[:, None] * memory[at]
        found = items.index_select(0, chosen.flatten()).view(sums.shape)
        weights = memory[at + (taps * lines.targets)[:, None]] * there[:, None]
        sums.addcmul_(found, weights[..., None])
    return sums.bitwise_right_shift_(BITS).clamp_(0, 255).to(torch.uint8)  # Pillow's `clip8`


@cache
def _fused() -> Callable[[torch.Tensor, Lines, torch.Tensor], torch.Tensor] | None:
    """The same in one kernel; None, with a word in the log, where Triton cannot make it."""
    try:
        from bettersynth.operators.batched.resize_kernel import weighed

        nothing = torch.zeros(7, 1, dtype=torch.int64, device="cuda")
        weighed(nothing.byte(), Lines(nothing, 1, 1, 0, 1), nothing[0].int())
    except Exception as error:  # no Triton, no C compiler for it, no folder it may write to, …
        logger.warning("pictures are resized by many small kernels instead of one, which is slower: %s", error)
        return None
    return weighed


class _Table:
    """The taps of every axis that was met, on the device, one axis after the other."""

    def __init__(self, device: torch.device, resample: int) -> None:
        self.memory = torch.empty(0, dtype=torch.int32, device=device)
        """Of each axis the source pixels `[taps, targets]`, then their weights."""
        self._resample = resample
        self._used = 0
        self._places: dict[tuple[int, Axis], tuple[int, int]] = {}

    def places(self, axes: Sequence[tuple[int, Axis]]) -> Ints:
        """`[2, axes]`: where the taps of an axis begin in `memory`, and how many a target has. Axes may repeat.

        They hold until the next call.
        """
        if new := [axis for axis in dict.fromkeys(axes) if axis not in self._places]:
            self._add(new, axes)
        return np.array([self._places[axis] for axis in axes]).T

    def _add(self, new: Sequence[tuple[int, Axis]], axes: Sequence[tuple[int, Axis]]) -> None:
        made = [taps(length, axis, self._resample) for length, axis in new]
        flat = np.concatenate([part.T.ravel() for one in made for part in one]).astype(np.int32)
        used = self._used + len(flat)
        if used > MOST_TAPS and self._used:
            self._used = 0
            self._places.clear()
            self._add(list(dict.fromkeys(axes)), axes)
            return
        if used > len(self.memory):
            larger = self.memory.new_empty(max(used, min(2 * used, MOST_TAPS)))
            larger[: self._used] = self.memory[: self._used]
            self.memory = larger
        self.memory[self._used : used] = torch.from_numpy(flat).to(self.memory.device)
        for axis, one in zip(new, made, strict=True):  # no sooner: the device may have had no memory for them
            self._places[axis] = self._used, one.sources.shape[1]
            self._used += one.sources.size + one.weights.size


@cache
def _table(device: torch.device, resample: int) -> _Table:
    return _Table(device, resample)

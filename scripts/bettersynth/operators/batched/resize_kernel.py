"""Weighed sums of bytes as one kernel of Triton, which CUDA's and ROCm's builds of PyTorch bring with them.

Written in PyTorch's own operations, every tap is a kernel that reads and writes all sums once more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from bettersynth.operators.batched.resize import Lines, Weighed

BLOCK = 256
"""Bytes that one program makes."""


def weighed(items: torch.Tensor, lines: Lines, taps: Weighed) -> torch.Tensor:
    """`resize._weighed` on the device: uint8 `[lines, targets, width]` from uint8 `[items, width]`."""
    count, _, targets = taps.sources.shape
    width = items.shape[1]
    made = torch.empty((len(lines.begins), targets, width), dtype=torch.uint8, device=items.device)
    grid = (len(lines.begins), triton.cdiv(targets * width, BLOCK))
    parts = (*lines, *taps)
    _weighed[grid](items, made, *parts, count, targets, width, len(taps.sources[0]) * targets, BLOCK)
    return made


@triton.jit(do_not_specialize=["count", "targets", "width", "apart"])
def _weighed(  # type: ignore[no-untyped-def]
    items,
    made,
    begins,
    steps,
    taps,
    sources,
    weights,
    count,
    targets,
    width,
    apart,
    BLOCK: tl.constexpr,  # noqa: N803
):
    """One block of one line; `apart` is the distance of two taps in `sources` and `weights`."""
    line = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < targets * width
    target = place // width
    begin, step = tl.load(begins + line), tl.load(steps + line)
    tap = tl.load(taps + line) * targets + target
    sums = tl.full((BLOCK,), 1 << 21, tl.int32)
    for _ in range(count):
        item = begin + step * tl.load(sources + tap, inside, 0)
        found = tl.load(items + item * width + place % width, inside, 0).to(tl.int32)
        sums += found * tl.load(weights + tap, inside, 0)
        tap += apart
    byte = tl.minimum(tl.maximum(sums >> 22, 0), 255).to(tl.uint8)
    tl.store(made + line * targets * width + place, byte, inside)

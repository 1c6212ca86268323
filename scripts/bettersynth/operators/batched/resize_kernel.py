"""Weighed sums of bytes as one kernel of Triton, which CUDA's and ROCm's builds of PyTorch bring with them.

Written in PyTorch's own operations, every tap is a kernel that reads and writes all sums once more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from bettersynth.operators.batched.taps import Lines

BLOCK = 256
"""Bytes that one program makes."""


def weighed(items: torch.Tensor, lines: Lines, memory: torch.Tensor) -> torch.Tensor:
    """`resize._weighed` on the device: uint8 `[lines, targets, width]` from uint8 `[items, width]`."""
    width, pictures = items.shape[1], lines.table.shape[1]
    made = torch.empty((lines.total, lines.targets, width), dtype=torch.uint8, device=items.device)
    grid = (lines.longest, pictures, triton.cdiv(lines.targets * width, BLOCK))
    _weighed[grid](items, made, lines.table, memory, pictures, lines.targets, width, BLOCK)
    return made


@triton.jit(do_not_specialize=["pictures", "targets", "width"])
def _weighed(  # type: ignore[no-untyped-def]
    items,
    made,
    table,
    memory,
    pictures,
    targets,
    width,
    BLOCK: tl.constexpr,  # noqa: N803
):
    """One block of one line; a picture has as many as the one with most, of which those beyond its own do nothing."""
    line = tl.program_id(0).to(tl.int64)
    entry = table + tl.program_id(1)
    begin = tl.load(entry) + line * tl.load(entry + pictures)
    step = tl.load(entry + 2 * pictures)
    count = tl.load(entry + 3 * pictures)
    before = tl.load(entry + 4 * pictures)
    tap = tl.load(entry + 5 * pictures)
    taps = tl.load(entry + 6 * pictures)
    block = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    inside = block < tl.where(line < count, targets * width, 0)
    target = block // width
    sums = tl.full((BLOCK,), 1 << 21, tl.int32)
    for number in range(tl.where(line < count, taps, 0).to(tl.int32)):
        at = tap + number * targets + target
        item = begin + step * tl.load(memory + at, inside, 0)
        found = tl.load(items + item * width + block % width, inside, 0).to(tl.int32)
        sums += found * tl.load(memory + at + taps * targets, inside, 0)
    byte = tl.minimum(tl.maximum(sums >> 22, 0), 255).to(tl.uint8)
    tl.store(made + (before + line) * targets * width + block, byte, inside)

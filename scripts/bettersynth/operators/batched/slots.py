"""Memory in which worker processes leave decoded pictures, and from which the device takes them without a copy between.

A data loader's own way costs the job's one thread more than all the rest: every batch in new shared memory, mapped,
copied once more to pinned memory, and given back.
"""

from __future__ import annotations

import logging
import mmap
import weakref
from collections import deque

import torch

logger = logging.getLogger(__name__)


class Slots:
    """Equal slots, used in turn; worker processes inherit them by fork.

    The memory is pinned, so that copies to the device run beside its work; where that is refused (a limit on locked
    memory), a line in the log says so and copies are waited for.
    """

    def __init__(self, count: int, pixels: int) -> None:
        """`count` slots of so many RGB pixels."""
        self.pixels = pixels
        self._memory = torch.frombuffer(mmap.mmap(-1, count * pixels * 3), dtype=torch.uint8).view(count, pixels, 3)
        self._copied: list[torch.cuda.Event | None] = [None] * count
        self.reset()
        _pin(self, self._memory)

    def reset(self) -> None:
        """All slots are free: the workers that had them have ended."""
        self._free = deque(range(len(self._memory)))

    def take(self) -> int:
        """The number of a free slot, whose pixels the device has taken."""
        number = self._free.popleft()
        if (copied := self._copied[number]) is not None:
            copied.synchronize()
        return number

    def memory(self, number: int) -> torch.Tensor:
        """A slot's memory: uint8 `[pixels, 3]`."""
        return self._memory[number]

    def upload(self, number: int, pixels: int, device: torch.device) -> torch.Tensor:
        """The slot's first pixels on the device; the slot is free again."""
        uploaded = self._memory[number, :pixels].to(device, non_blocking=True)
        self._copied[number] = copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(device))
        self._free.append(number)
        return uploaded


def _pin(owner: Slots, memory: torch.Tensor) -> None:
    cuda = torch.cuda.cudart()
    error = int(cuda.cudaHostRegister(memory.data_ptr(), memory.numel(), 0))
    if error:
        logger.warning("%.0f MB cannot be pinned (CUDA error %d): copies are waited for", memory.numel() / 1e6, error)
    else:
        weakref.finalize(owner, cuda.cudaHostUnregister, memory.data_ptr())

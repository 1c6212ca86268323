"""Memory in which worker processes leave what they made, and from which the device takes it without a copy between.

The usual ways cost a job's one thread more than all the rest: bytes through a pipe, or every batch in new shared
memory, mapped, copied once more to pinned memory, and given back.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import weakref
from collections import deque

import torch

logger = logging.getLogger(__name__)


class PinnedSlots:
    """Equal slots of bytes, used in turn; worker processes inherit them by fork.

    The memory is pinned when the device first takes from it, so that copies run beside its work, in a stream of their
    own: behind the work they would keep slots, and so the job's one thread, waiting for it. Where pinning is refused (a
    limit on locked memory), a line in the log says so and copies are waited for.
    """

    def __init__(self, count: int, size: int) -> None:
        """`count` slots of `size` bytes."""
        self.size = size
        self._memory = torch.frombuffer(mmap.mmap(-1, count * size), dtype=torch.uint8).view(count, size)
        self._copies: torch.cuda.Stream | None = None
        self._copied: list[torch.cuda.Event | None] = [None] * count
        self.reset()

    def reset(self) -> None:
        """All slots are free: the workers that had them have ended."""
        self._free = deque(range(len(self._memory)))

    def take(self) -> int:
        """The number of a free slot, whose bytes the device has taken."""
        number = self._free.popleft()
        if (copied := self._copied[number]) is not None:
            copied.synchronize()
        return number

    def memory(self, number: int) -> torch.Tensor:
        """A slot's memory: uint8 `[size]`."""
        return self._memory[number]

    def upload(self, number: int, size: int, device: torch.device) -> torch.Tensor:
        """The slot's first `size` bytes on the device, uint8 `[size]`; the slot is free again."""
        if self._copies is None:
            self._copies = torch.cuda.Stream(device)
            _pin(self, self._memory)
        with torch.cuda.stream(self._copies):
            uploaded = self._memory[number, :size].to(device, non_blocking=True)
            self._copied[number] = copied = self._copies.record_event()
        work = torch.cuda.current_stream(device)
        work.wait_event(copied)
        uploaded.record_stream(work)
        self._free.append(number)
        return uploaded


def _pin(owner: PinnedSlots, memory: torch.Tensor) -> None:
    cuda = torch.cuda.cudart()
    error = int(cuda.cudaHostRegister(memory.data_ptr(), memory.numel(), 0))
    if error:
        logger.warning("%.0f MB cannot be pinned (CUDA error %d): copies are waited for", memory.numel() / 1e6, error)
        with contextlib.suppress(RuntimeError):  # CUDA remembers the error, and the next kernel would report it
            torch.ones(1, device="cuda")
    else:
        weakref.finalize(owner, cuda.cudaHostUnregister, memory.data_ptr())

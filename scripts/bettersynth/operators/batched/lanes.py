"""One operator's way over the device: batches that fit into its memory, and values back in order."""

from __future__ import annotations

import logging
import time
from collections import deque
from itertools import groupby
from typing import NamedTuple

import torch

from bettersynth.operators.batched.filters import BatchedFilter
from bettersynth.operators.batched.preparing import Job

logger = logging.getLogger(__name__)

CPU_BATCH = 16
"""Images in a forward pass on a CPU: more is not faster there, and costs memory."""
FIRST_BATCH = 32
"""Images in the first forward pass on a GPU; doubled while memory is left."""
IN_FLIGHT = 2
"""Batches whose results are not waited for, so that the device never idles between two."""


class LaneError(RuntimeError):
    """An operator cannot go on; `record` is the position of a record it stopped at."""

    def __init__(self, record: int, reason: str) -> None:
        super().__init__(reason)
        self.record = record


class _Pending(NamedTuple):
    job: Job
    pixels: torch.Tensor
    """uint8 of the whole piece, on the device."""


class _Running(NamedTuple):
    jobs: list[Job]
    raw: torch.Tensor
    started: torch.cuda.Event | float
    ended: torch.cuda.Event | float


class Lane:
    """Collects an operator's jobs, runs them in batches and hands out their values."""

    def __init__(self, name: str, kind: BatchedFilter, batch: int | None) -> None:
        self.kind = kind
        self.seconds = 0.0
        self._name = name
        self._cuda = kind.device.type == "cuda"
        self.limit = batch or (kind.largest_batch if self._cuda else CPU_BATCH)
        """Images in one forward pass at most: the configured number, or what memory has shown to hold."""
        self.batch = min(self.limit, FIRST_BATCH) if self._cuda and batch is None else self.limit
        self._pending: deque[_Pending] = deque()
        self._running: deque[_Running] = deque()
        self._values: list[tuple[Job, float]] = []

    def add(self, jobs: list[Job], pixels: torch.Tensor) -> None:
        """Take jobs in, and run every full batch."""
        self._pending.extend(_Pending(job, pixels) for job in jobs)
        while len(self._pending) >= self.batch:
            self._run(self.batch)

    def finish(self) -> list[tuple[Job, float]]:
        """The values of all jobs since the last call, in order; runs what is left."""
        while self._pending:
            self._run(min(self.batch, len(self._pending)))
        while self._running:
            self._collect()
        values, self._values = self._values, []
        return values

    def _run(self, count: int) -> None:
        some = [self._pending.popleft() for _ in range(count)]
        try:
            self._running.append(self._forward(some))
        except (torch.OutOfMemoryError, MemoryError) as error:
            if count == 1:
                raise LaneError(
                    some[0].job.record, f"{self.kind.device} has no memory for one image: {error}"
                ) from error
            self._pending.extendleft(reversed(some))
            self._halve(count)
            return
        except Exception as error:
            reason = f"{type(error).__name__} in a batch of {count} that begins with it: {error}"
            raise LaneError(some[0].job.record, reason) from error
        if self._cuda and count == self.batch < self.limit:
            self._grow()
        while len(self._running) > (IN_FLIGHT if self._cuda else 0):
            self._collect()

    def _forward(self, some: list[_Pending]) -> _Running:
        jobs = [pending.job for pending in some]
        started = self._now()
        with torch.inference_mode():
            pixels = self.kind.normalisation.apply(_gathered(some), self.kind.dtype)
            raw = self.kind.forward(pixels, [job.text for job in jobs]).to("cpu", non_blocking=True)
        return _Running(jobs, raw, started, self._now())

    def _now(self) -> torch.cuda.Event | float:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _collect(self) -> None:
        jobs, raw, started, ended = self._running.popleft()
        if isinstance(started, float) or isinstance(ended, float):
            self.seconds += ended - started  # type: ignore[operator]
        else:
            ended.synchronize()
            self.seconds += started.elapsed_time(ended) / 1000
        finite = raw.isfinite().flatten(1).all(1) if raw.ndim > 1 else raw.isfinite()
        if not finite.all():
            record = jobs[int(finite.logical_not().nonzero()[0, 0])].record
            raise LaneError(
                record, f"no finite score in {self.kind.dtype}; set `scoring: {{precision: fp32}}` and run again"
            )
        values = self.kind.values(raw.numpy(), [job.text for job in jobs], [job.size for job in jobs])
        self._values += zip(jobs, values, strict=True)

    def _halve(self, count: int) -> None:
        self.limit = self.batch = count // 2
        logger.warning("%s: out of memory with %d images at a time; going on with %d", self._name, count, self.batch)
        if self._cuda:
            torch.cuda.empty_cache()

    def _grow(self) -> None:
        """Double the batch when what the last one took at its peak would fit twice more."""
        peak = torch.cuda.max_memory_allocated(self.kind.device)
        free, _ = torch.cuda.mem_get_info(self.kind.device)
        reserved = torch.cuda.memory_reserved(self.kind.device)
        if 2 * peak < free + reserved:
            self.batch = min(2 * self.batch, self.limit)


def _gathered(some: list[_Pending]) -> torch.Tensor:
    """The pixels of a batch's jobs, in order."""
    tensors = []
    for _, group in groupby(some, key=lambda pending: id(pending.pixels)):
        members = list(group)
        pixels, rows = members[0].pixels, [pending.job.row for pending in members]
        first, last = rows[0], rows[-1] + 1
        tensors.append(pixels[first:last] if rows == list(range(first, last)) else pixels[rows])
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)

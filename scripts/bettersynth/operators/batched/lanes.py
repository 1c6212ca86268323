"""One operator's way over the device: batches that fit into its memory, and values back in order."""

from __future__ import annotations

import logging
import time
from collections import deque
from itertools import groupby
from typing import NamedTuple

import torch

from bettersynth.operators.batched.filters import BatchedFilter
from bettersynth.operators.batched.types import WorkItem

logger = logging.getLogger(__name__)

CPU_BATCH = 16
"""Images in a forward pass on a CPU: more is not faster there, and costs memory."""
FIRST_BATCH = 32
"""Images in the first forward pass on a GPU; doubled while memory is left."""
IN_FLIGHT = 2
"""Batches whose results are not waited for, so that the device never idles between two."""


class LaneError(RuntimeError):
    """An operator cannot go on; `job` is one of a record it stopped at."""

    def __init__(self, operator: str, job: WorkItem, reason: str) -> None:
        super().__init__(reason)
        self.operator = operator
        self.job = job


class _Pending(NamedTuple):
    job: WorkItem
    pixels: torch.Tensor
    """uint8 of the whole piece, on the device."""


class _Running(NamedTuple):
    jobs: list[WorkItem]
    raw: torch.Tensor
    started: torch.cuda.Event | float
    ended: torch.cuda.Event | float

    @property
    def done(self) -> bool:
        """Whether the device has computed it."""
        return isinstance(self.ended, float) or self.ended.query()


class _Done(NamedTuple):
    jobs: list[WorkItem]
    values: list[float]
    seconds: float


class Lane:
    """Collects an operator's jobs, runs them in batches and hands out their values."""

    def __init__(self, name: str, kind: BatchedFilter, batch: int | None) -> None:
        self.kind = kind
        self._name = name
        self._cuda = kind.device.type == "cuda"
        self.limit = batch or (kind.largest_batch if self._cuda else CPU_BATCH)
        """Images in one forward pass at most: the configured number, or what memory has shown to hold."""
        self.batch = min(self.limit, FIRST_BATCH) if self._cuda and batch is None else self.limit
        self._pending: deque[_Pending] = deque()
        self._running: deque[_Running] = deque()
        self._done: deque[_Done] = deque()

    def add(self, jobs: list[WorkItem], pixels: torch.Tensor) -> None:
        """Take jobs in, and run every full batch."""
        self._pending.extend(_Pending(job, pixels) for job in jobs)
        while len(self._pending) >= self.batch:
            self._run(self.batch)

    def flush(self) -> None:
        """Start what is left: no batch goes on beyond this."""
        while self._pending:
            self._run(min(self.batch, len(self._pending)))

    def ready(self, count: int) -> bool:
        """Whether the first `count` jobs that were taken in and not handed out are computed."""
        counts = [len(one.jobs) for one in self._done] + [len(one.jobs) for one in self._running if one.done]
        return sum(counts) >= count

    def take(self, count: int) -> tuple[list[tuple[WorkItem, float]], float]:
        """The next `count` jobs with their values, and the device's seconds; waits for them. They end with a batch."""
        values: list[tuple[WorkItem, float]] = []
        seconds = 0.0
        while len(values) < count:
            if not self._done:
                self._collect()
            done = self._done.popleft()
            values += zip(done.jobs, done.values, strict=True)
            seconds += done.seconds
        return values, seconds

    def _run(self, count: int) -> None:
        some = [self._pending.popleft() for _ in range(count)]
        try:
            self._running.append(self._forward(some))
        except (torch.OutOfMemoryError, MemoryError) as error:
            if count == 1:
                raise LaneError(
                    self._name, some[0].job, f"{self.kind.device} has no memory for one image: {error}"
                ) from error
            self._pending.extendleft(reversed(some))
            self._halve(count)
            return
        except Exception as error:
            reason = f"{type(error).__name__} in a batch of {count} that begins with it: {error}"
            raise LaneError(self._name, some[0].job, reason) from error
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
            seconds = float(ended - started)  # type: ignore[operator]
        else:
            ended.synchronize()
            seconds = started.elapsed_time(ended) / 1000
        finite = raw.isfinite().flatten(1).all(1) if raw.ndim > 1 else raw.isfinite()
        if not finite.all():
            job = jobs[int(finite.logical_not().nonzero()[0, 0])]
            raise LaneError(
                self._name,
                job,
                f"no finite score in {self.kind.dtype}; set `scoring: {{precision: fp32}}` and run again",
            )
        values = self.kind.values(raw.numpy(), [job.text for job in jobs], [job.size for job in jobs])
        self._done.append(_Done(jobs, values, seconds))

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

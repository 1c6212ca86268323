"""Score records by all operators of a pass: models loaded once, each image decoded once."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from bettersynth.configuration.operators import operator_spec
from bettersynth.configuration.pool import Model, Operator, Reading, Scoring
from bettersynth.core.image_paths import ImageReason
from bettersynth.core.progress import progress
from bettersynth.core.publish import device_name
from bettersynth.core.records import Record
from bettersynth.operators.base import Paths, RecordOperator, Stats, load_own
from bettersynth.operators.batched import precision
from bettersynth.operators.batched.errors import RecordError
from bettersynth.operators.batched.filters import BatchedFilter
from bettersynth.operators.batched.lanes import Lane, LaneError
from bettersynth.operators.batched.pinned import PinnedSlots
from bettersynth.operators.batched.pixels import Geometry
from bettersynth.operators.batched.preparing import NOTED, Failure, Preparer, StockOperator, pieces_of
from bettersynth.operators.batched.resize import Picture, resize
from bettersynth.operators.batched.types import Piece, Prepared
from bettersynth.operators.data_juicer import build
from bettersynth.runtime.patches import torch_workers

PIECE = 32
"""Records that a worker prepares at one time."""
TOGETHER = 4
"""Pieces whose pictures the device resizes at one time: what that costs the job's one thread hardly grows with them."""
PREFETCHED = 2
"""Pieces under way for each worker."""
SLOT = PIECE * 448 * 448 * 3
"""Bytes of a slot: pieces of larger pictures travel by memory of their own."""
MOST_WORKERS = 16
"""Decoding processes that keep one GPU busy."""
WORTH_WORKERS = 16 * PIECE
"""Fewer records are prepared before worker processes would be up."""


@dataclass
class OperatorScores:
    """One operator's scores of one shard."""

    stats: list[Stats]
    """For each record in order, stats key -> value; None for a record with a damaged image."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Record id -> what is wrong with its image."""
    failed: dict[str, str] = field(default_factory=dict)
    """Record id -> why the operator cannot score it."""
    seconds: dict[str, float] = field(default_factory=dict)
    """`loading` the model; `decoding` and resizing images for the whole pass, and `preparing` texts and stats, summed
    over worker processes; `computing` on the device."""
    device: str = "cpu"
    precision: str = "fp32"
    batch: int | None = None
    """Images in one forward pass that memory has shown to hold; None without a model on the device."""

    @property
    def own_seconds(self) -> float:
        """What this operator alone took, of the pass's time."""
        return self.seconds["preparing"] + self.seconds.get("computing", 0.0)


class _Uploaded(NamedTuple):
    prepared: Prepared
    buffer: torch.Tensor | None
    """Its pictures on the device as they were decoded, uint8 `[pixels, 3]`; None where the worker resized."""


@dataclass
class _Shard:
    key: Any
    records: Sequence[Record]
    jobs: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Operator -> how many values its model owes."""
    parts: dict[str, dict[int, list[float | None]]] = field(default_factory=lambda: defaultdict(dict))
    stats: dict[str, dict[int, Stats]] = field(default_factory=lambda: defaultdict(dict))
    unreadable: dict[int, str] = field(default_factory=dict)
    failed: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    uploaded: list[_Uploaded] = field(default_factory=list)
    """Pieces that wait for others, to be given to the models with them."""
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    device_seconds: dict[str, float] = field(default_factory=dict)


class BatchScorer:
    """All operators of a pass, ready to score."""

    def __init__(
        self,
        filters: Mapping[str, BatchedFilter],
        others: Mapping[str, RecordOperator],
        keys: Mapping[str, Sequence[str]],
        *,
        reading: Reading,
        settings: Scoring,
        loading: Mapping[str, float],
        noted: Collection[ImageReason] = NOTED,
        threads: int = 0,
    ) -> None:
        """`filters` have been loaded; `keys` are the operators' stats keys. `load` makes one of a configuration.

        What is wrong with a picture ends the pass, unless it is one of `noted`. With `threads`, these prepare records
        in place of worker processes, in a process that can or should not be forked.
        """
        self._filters = filters
        self._others = others
        self._keys = keys
        self._reading = reading
        self._settings = settings
        self._loading = loading
        self._noted = noted
        self._threads = threads
        self._lanes = {name: Lane(name, kind, settings.batch) for name, kind in filters.items()}
        self._cuda = any(kind.device.type == "cuda" for kind in filters.values())
        self._device_resizes = self._cuda
        self._slots: PinnedSlots | None = None
        self._preparer: Preparer

    @classmethod
    def load(
        cls,
        operators: Mapping[str, tuple[Operator, Model | None]],
        *,
        reading: Reading,
        settings: Scoring,
        device: str | None = None,
    ) -> BatchScorer:
        """Load the operators' models; `runtime.patches.prepare` must have been called.

        `device` is `cpu` or `cuda`; by default the GPU where there is one. Raises FileNotFoundError or ValueError when
        a model folder cannot be used.
        """
        kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
        filters: dict[str, BatchedFilter] = {}
        others: dict[str, RecordOperator] = {}
        loading: dict[str, float] = {}
        for name, (operator, model) in operators.items():
            started = time.monotonic()
            spec = operator_spec(operator.op)
            if spec.ours:
                others[name] = load_own(operator, model)
            else:
                built = build(operator, model, kind, spec.kind_class)
                if isinstance(built, BatchedFilter):
                    built.load(settings.precision, None)
                    filters[name] = built
                else:
                    captions = operator.parameters.get("text") == "caption"
                    others[name] = StockOperator(built, spec, captions=captions)
            loading[name] = time.monotonic() - started
        keys = {name: tuple(operator_spec(operator.op).stats) for name, (operator, _) in operators.items()}
        return cls(filters, others, keys, reading=reading, settings=settings, loading=loading)

    @property
    def operators(self) -> frozenset[str]:
        """Names of the operators."""
        return frozenset(self._keys)

    def score(self, records: Sequence[Record], paths: Paths) -> dict[str, OperatorScores]:
        """The scores of one shard by every operator; see `score_shards`."""
        [(_, scores)] = self.score_shards([("records", records, self.operators)], paths, len(records))
        return scores

    def score_shards(
        self,
        shards: Iterable[tuple[Any, Sequence[Record], Iterable[str]]],
        paths: Paths,
        total: int,
    ) -> Iterator[tuple[Any, dict[str, OperatorScores]]]:
        """Yield each shard's key and scores, in order, while the next ones are under way.

        Shards are `(key, records, names of the operators that are due)` and may be drawn lazily; `total` is the number
        of records, for the progress. Batches end with their shard: its scores do not depend on its company. A record
        with a damaged image has None for every stat that needs it, as one that an operator raises for has for its own.
        Raises RecordError for whatever else goes wrong.
        """
        open_shards: dict[int, _Shard] = {}
        loader = self._loader(self._pieces(shards, open_shards), paths, total)
        closing: deque[Piece] = deque()
        for prepared in progress(loader, total, "scoring pairs", size=lambda done: done.records):
            piece = prepared.piece
            try:
                with _naming_record(open_shards):
                    self._take(prepared, open_shards[piece.shard])
                    if piece.last:
                        for name in self._lanes.keys() & piece.operators:
                            self._lanes[name].flush()
                        closing.append(piece)
            except RecordError as error:
                for last in closing:
                    if open_shards[last.shard].key == error.shard:
                        break
                    yield self._finished(last, open_shards)  # before the one that is not whole
                raise
            while closing and self._computed(open_shards[closing[0].shard]):
                yield self._finished(closing.popleft(), open_shards)
        while closing:
            yield self._finished(closing.popleft(), open_shards)

    def _computed(self, shard: _Shard) -> bool:
        return all(self._lanes[name].ready(count) for name, count in shard.jobs.items())

    def _finished(self, last: Piece, open_shards: dict[int, _Shard]) -> tuple[Any, dict[str, OperatorScores]]:
        """The key and the scores of the shard that ends with this piece; it is open no more."""
        with _naming_record(open_shards):
            self._finish(open_shards[last.shard], last.operators)
        shard = open_shards.pop(last.shard)
        return shard.key, {name: self._scores(name, shard) for name in self._keys if name in last.operators}

    def _pieces(
        self,
        shards: Iterable[tuple[Any, Sequence[Record], Iterable[str]]],
        open_shards: dict[int, _Shard],
    ) -> Iterator[Piece]:
        for number, (key, records, operators) in enumerate(shards):
            open_shards[number] = _Shard(key, records)
            for piece in pieces_of(number, records, operators, PIECE):
                yield piece._replace(slot=self._slots.take()) if self._slots else piece

    def _loader(self, pieces: Iterator[Piece], paths: Paths, total: int) -> Iterable[Prepared]:
        if self._threads:
            return self._by_threads(pieces, paths)
        workers = self._settings.workers
        if workers is None:  # on a CPU the models need all cores themselves
            workers = min(len(os.sched_getaffinity(0)), MOST_WORKERS) if self._cuda and total >= WORTH_WORKERS else 0
        if self._slots:
            self._slots.reset()
        elif self._cuda and workers:  # one more is taken before the oldest is given back, another while it is copied
            self._slots = PinnedSlots(PREFETCHED * workers + 2, SLOT)
        self._preparer = self._prepares(paths)
        torch_workers.hand_over_anyhow()
        loader = DataLoader(
            self._preparer,
            sampler=pieces,  # type: ignore[arg-type]
            batch_size=None,
            num_workers=workers,
            prefetch_factor=PREFETCHED if workers else None,
            multiprocessing_context="fork" if workers else None,  # models and slots are inherited, not sent
            timeout=torch_workers.PATIENCE_S if workers else 0,
        )
        return torch_workers.waited(loader, "scoring")

    def _prepares(self, paths: Paths) -> Preparer:
        resizes, slots = self._device_resizes, self._slots
        return Preparer(self._filters, self._others, paths, self._reading, resizes, slots, self._noted)

    def _by_threads(self, pieces: Iterator[Piece], paths: Paths) -> Iterator[Prepared]:
        """Prepared pieces in order, a few of them under way."""
        self._preparer = self._prepares(paths)
        under_way: deque[Future[Prepared]] = deque()
        with ThreadPoolExecutor(self._threads, "preparing") as pool:
            for piece in pieces:
                under_way.append(pool.submit(self._preparer.__getitem__, piece))
                if len(under_way) > PREFETCHED * self._threads:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()

    def _take(self, prepared: Prepared, shard: _Shard) -> None:
        """Note what the worker found, and give the models their part."""
        if prepared.failure:
            raise RecordError(*prepared.failure, shard.key)
        shard.unreadable |= prepared.unreadable
        first = prepared.piece.first
        try:
            self._preparer.make_in_job(prepared, shard.records[first : first + prepared.records])
        except Failure as failure:
            raise RecordError(*failure.args, shard.key) from failure
        for name, failed in prepared.failed.items():
            shard.failed[name] |= failed
        for part, seconds in prepared.seconds.items():
            shard.seconds[part] += seconds
        for name, stats in prepared.stats.items():
            shard.stats[name].update(stats)
        shard.uploaded.append(_Uploaded(prepared, self._uploaded(prepared) if self._device_resizes else None))
        if len(shard.uploaded) == (TOGETHER if self._device_resizes else 1) or prepared.piece.last:
            pieces, shard.uploaded = shard.uploaded, []
            self._give(pieces, shard)

    def _give(self, pieces: list[_Uploaded], shard: _Shard) -> None:
        """Give the models what they are to score of these pieces."""
        try:
            buffers = _Buffers([buffer for _, buffer in pieces])
        except torch.OutOfMemoryError:
            buffers = None
        if buffers is None:  # one by one, then, which copies nothing
            torch.cuda.empty_cache()
            for piece in pieces:
                self._give([piece], shard)
            return
        on_device: dict[Geometry, list[torch.Tensor | None]] = {}
        for name in pieces[0].prepared.jobs:
            lane = self._lanes[name]
            geometry = lane.kind.geometry
            if geometry not in on_device:
                on_device[geometry] = _pixels([prepared for prepared, _ in pieces], buffers, geometry, lane.kind.device)
            for (prepared, _), pixels in zip(pieces, on_device[geometry], strict=True):
                jobs = prepared.jobs[name]
                shard.parts[name].update(prepared.parts[name])
                shard.jobs[name] += len(jobs)
                if pixels is not None:
                    lane.add(jobs, pixels)

    def _uploaded(self, prepared: Prepared) -> torch.Tensor | None:
        """The piece's pictures on the device, as they were decoded."""
        device = next(iter(self._lanes.values())).kind.device
        if self._slots and prepared.piece.slot is not None:
            uploaded = self._slots.upload(prepared.piece.slot, 3 * prepared.in_slot, device)
            if prepared.buffer is None:
                return uploaded.view(-1, 3)
        return None if prepared.buffer is None else prepared.buffer.to(device)

    def _finish(self, shard: _Shard, operators: Iterable[str]) -> None:
        """Make the shard's stats of the models' values."""
        for name in self._lanes.keys() & operators:
            lane = self._lanes[name]
            scored: dict[tuple[int, int], list[float]] = defaultdict(list)
            taken, shard.device_seconds[name] = lane.take(shard.jobs[name])
            for job, value in taken:
                scored[job.record, job.part].append(value)
            for position, parts in shard.parts[name].items():
                values = [
                    lane.kind.reduce(scored[position, number]) if known is None else known
                    for number, known in enumerate(parts)
                ]
                shard.stats[name][position] = {lane.kind.stat: values}

    def _scores(self, name: str, shard: _Shard) -> OperatorScores:
        nothing = dict.fromkeys(self._keys[name])
        reads = name in self._filters or self._others[name].decodes
        scores = OperatorScores(
            [shard.stats[name].get(position, nothing) for position in range(len(shard.records))],
            {shard.records[position].id: detail for position, detail in shard.unreadable.items()} if reads else {},
            {shard.records[position].id: reason for position, reason in shard.failed[name].items()},
            {"loading": self._loading[name], "preparing": shard.seconds[name]},
        )
        if reads:
            scores.seconds["decoding"] = shard.seconds["decoding"]
        if lane := self._lanes.get(name):
            scores.seconds["computing"] = shard.device_seconds[name]
            scores.device = device_name() if lane.kind.device.type == "cuda" else "cpu"
            scores.precision = next(word for word, dtype in precision.DTYPES.items() if dtype == lane.kind.dtype)
            scores.batch = lane.batch
        elif self._preparer.runs_in_job(name):
            scores.device = device_name()
        return scores


def _pixels(
    pieces: list[Prepared], buffers: _Buffers, geometry: Geometry, device: torch.device
) -> list[torch.Tensor | None]:
    """Each piece's pixels of one geometry on the device: from its worker, or resized now, all in one; None for none."""
    ready = [prepared.pixels.get(geometry) for prepared in pieces]
    resized = buffers.resized([prepared.pictures.get(geometry, []) for prepared in pieces], geometry)
    return [
        made if one is None else one.to(device, non_blocking=True) for one, made in zip(ready, resized, strict=True)
    ]


class _Buffers:
    """Pictures of several pieces as they were decoded, in one buffer on the device."""

    def __init__(self, buffers: list[torch.Tensor | None]) -> None:
        """For each piece its pixels `[pixels, 3]`, or None."""
        there = [buffer for buffer in buffers if buffer is not None]
        self._pixels = torch.cat(there) if len(there) > 1 else there[0] if there else None
        self._begins = [0, *itertools.accumulate(0 if buffer is None else len(buffer) for buffer in buffers)]

    def resized(self, pictures: list[list[Picture]], geometry: Geometry) -> list[torch.Tensor | None]:
        """Each piece's pictures at this geometry; None for a piece without any."""
        every = [
            Picture(begin + offset, plan)
            for begin, some in zip(self._begins, pictures, strict=False)
            for offset, plan in some
        ]
        if self._pixels is None or not every:
            return [None] * len(pictures)
        parts = _resized(self._pixels, every, geometry.resample).split([len(some) for some in pictures])
        return [part if len(part) else None for part in parts]


def _resized(buffer: torch.Tensor, pictures: list[Picture], resample: int) -> torch.Tensor:
    """All pictures resized at one time, or in halves where memory does not do for that."""
    try:
        return resize(buffer, pictures, resample)
    except torch.OutOfMemoryError:
        if len(pictures) == 1:
            raise
    # here the traceback is gone, which held on to the memory of the first try
    torch.cuda.empty_cache()
    half = len(pictures) // 2
    return torch.cat([_resized(buffer, some, resample) for some in (pictures[:half], pictures[half:])])


@contextlib.contextmanager
def _naming_record(open_shards: Mapping[int, _Shard]) -> Iterator[None]:
    try:
        yield
    except LaneError as error:
        shard = open_shards[error.job.shard]
        raise RecordError(error.operator, shard.records[error.job.record].id, str(error), shard.key) from error

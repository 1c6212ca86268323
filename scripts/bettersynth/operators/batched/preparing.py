"""What a worker process does with a few records: read each image once, and make every operator's input of it."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import Dataset, get_worker_info

from bettersynth.configuration.pool import Reading
from bettersynth.core.records import Record
from bettersynth.operators.base import Paths, RecordOperator, Stats
from bettersynth.operators.batched.filters import BatchedFilter, Fields
from bettersynth.operators.batched.pinned import PinnedSlots
from bettersynth.operators.batched.pixels import Geometry
from bettersynth.operators.batched.resize import Picture
from bettersynth.operators.batched.types import Piece, Prepared, WorkItem
from bettersynth.pool.images import ImageProblem, ImageReason, open_pixels

MOST_PIXELS = 16_000_000
"""Of a piece's pictures together; more are resized where they were decoded: too many bytes would travel."""


class StockOperator:
    """A Data-Juicer filter as it is, called with many records at once.

    One that looks at pictures is given them by the context through which Data-Juicer's fused filters share theirs.
    """

    def __init__(self, built: Any, *, decodes: bool) -> None:
        self._built = built
        self.decodes = decodes

    def stats(self, texts: list[str], images: list[list[str]], decoded: list[dict[str, Image.Image]]) -> list[Stats]:
        batch = {"text": texts, "images": images, Fields.stats: [{} for _ in texts]}
        if self.decodes:
            return self._built.compute_stats_batched({**batch, Fields.context: decoded}, context=True)[Fields.stats]
        return self._built.compute_stats_batched(batch)[Fields.stats]


class Preparer(Dataset[Prepared]):
    """Turns pieces into what the models take; a data loader's worker processes share its work."""

    def __init__(
        self,
        filters: Mapping[str, BatchedFilter],
        others: Mapping[str, RecordOperator],
        paths: Paths,
        reading: Reading,
        device_resizes: bool,
        slots: PinnedSlots | None,
    ) -> None:
        self._filters = filters
        self._others = others
        self._paths = paths
        self._reading = reading
        self._device_resizes = device_resizes
        self._slots = slots

    def __getitem__(self, piece: Piece) -> Prepared:
        prepared = Prepared(piece, len(piece.records))
        try:
            self._prepare(prepared)
        except _Failure as failure:
            prepared.failure = failure.args
        prepared.piece = piece._replace(records=())
        return prepared

    def _prepare(self, prepared: Prepared) -> None:
        piece = prepared.piece
        filters = {name: kind for name, kind in self._filters.items() if name in piece.operators}
        others = {name: kind for name, kind in self._others.items() if name in piece.operators}
        paths = [self._resolved(piece, record) for record in piece.records]
        started = time.perf_counter()
        decoded: list[dict[str, Decoded]] = [{} for _ in paths]
        if filters or any(kind.decodes for kind in others.values()):
            decoded = [self._decoded(position, prepared, paths[position]) for position in range(len(paths))]
        prepared.seconds["decoding"] = time.perf_counter() - started

        everyone = list(range(len(paths)))
        whole = [position for position in everyone if piece.first + position not in prepared.unreadable]
        for name, other in others.items():
            started = time.perf_counter()
            chosen = whole if other.decodes else everyone
            stats = self._stats(name, other, piece, chosen, paths, decoded)
            prepared.stats[name] = [(piece.first + at, entry) for at, entry in zip(chosen, stats, strict=True)]
            prepared.seconds[name] = time.perf_counter() - started
        images = Pictures(decoded)
        for name, kind in filters.items():
            started = time.perf_counter()
            self._plan(name, kind, prepared, whole, paths, images)
            prepared.seconds[name] = time.perf_counter() - started
        started = time.perf_counter()
        if self._device_resizes and images.area <= MOST_PIXELS:
            prepared.pictures = self._leave(images, prepared)
        prepared.pixels = images.pixels(except_for=prepared.pictures)
        prepared.seconds["decoding"] += time.perf_counter() - started

    def _leave(self, images: Pictures, prepared: Prepared) -> dict[Geometry, list[Picture]]:
        """Put the pictures where the device finds them, and say where that is and what is to become of each."""
        slot = prepared.piece.slot
        if self._slots is not None and slot is not None and 3 * images.area <= self._slots.size:
            prepared.in_slot, pictures = images.undone(self._slots.memory(slot).view(-1, 3))
        else:
            prepared.buffer = _shared((images.area, 3))
            _, pictures = images.undone(prepared.buffer)
        return pictures

    def _resolved(self, piece: Piece, record: Record) -> list[str]:
        try:
            return [str(self._paths.path(record.image_root, image)) for image in record.images]
        except ImageProblem as problem:
            raise _Failure(piece, record, problem) from None

    def _decoded(self, position: int, prepared: Prepared, paths: list[str]) -> dict[str, Decoded]:
        """The record's pictures by path; none when one is damaged, which is noted. Any other problem is a failure."""
        try:
            return {path: Decoded(open_pixels(path, self._reading)) for path in dict.fromkeys(paths)}
        except ImageProblem as problem:
            if problem.reason != ImageReason.UNREADABLE:
                raise _Failure(prepared.piece, prepared.piece.records[position], problem) from None
            prepared.unreadable[prepared.piece.first + position] = problem.detail
            return {}

    def _stats(
        self,
        name: str,
        operator: RecordOperator,
        piece: Piece,
        chosen: list[int],
        paths: list[list[str]],
        decoded: list[dict[str, Decoded]],
    ) -> list[Stats]:
        def stats(positions: list[int]) -> list[Stats]:
            texts = [piece.records[position].text for position in positions]
            images = [{path: one.image for path, one in decoded[at].items()} for at in positions]
            return operator.stats(texts, [paths[at] for at in positions], images)

        try:
            return stats(chosen) if chosen else []
        except Exception:
            for position in chosen:  # which record was it?
                try:
                    stats([position])
                except Exception as error:
                    raise _Failure(piece, piece.records[position], error, name) from error
            raise

    def _plan(
        self,
        name: str,
        kind: BatchedFilter,
        prepared: Prepared,
        whole: list[int],
        paths: list[list[str]],
        images: Pictures,
    ) -> None:
        """Note the operator's jobs, and have `images` make their pixels."""
        piece, jobs = prepared.piece, []
        prepared.parts[name] = []
        records = self._parts(name, kind, piece, whole, paths)
        for position, parts in zip(whole, records, strict=True):
            prepared.parts[name].append((piece.first + position, [part.value for part in parts]))
            for number, part in enumerate(parts):
                for path in part.images:
                    row, size = images.row(kind.geometry, position, path)
                    jobs.append(WorkItem(piece.shard, piece.first + position, number, row, part.text, size))
        prepared.jobs[name] = jobs

    def _parts(
        self, name: str, kind: BatchedFilter, piece: Piece, whole: list[int], paths: list[list[str]]
    ) -> list[list[Any]]:
        try:
            return kind.plan([piece.records[at].text for at in whole], [paths[at] for at in whole])
        except Exception:
            for position in whole:  # which record was it?
                try:
                    kind.plan([piece.records[position].text], [paths[position]])
                except Exception as error:
                    raise _Failure(piece, piece.records[position], error, name) from error
            raise


class Decoded:
    """An image's pixels, and, for those who ask, Pillow's image of them."""

    def __init__(self, pixels: npt.NDArray[np.uint8]) -> None:
        """uint8 `[height, width, 3]`."""
        self.pixels = pixels

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        height, width, _ = self.pixels.shape
        return width, height

    @cached_property
    def image(self) -> Image.Image:
        """In mode RGB."""
        return Image.fromarray(self.pixels)


class Pictures:
    """The piece's pictures, in the sizes that models ask for: each once, whichever operators ask."""

    def __init__(self, decoded: list[dict[str, Decoded]]) -> None:
        self._decoded = decoded
        self._rows: dict[Geometry, dict[tuple[int, str], int]] = {}

    def row(self, geometry: Geometry, position: int, path: str) -> tuple[int, tuple[int, int]]:
        """The picture's row in the pixels of this geometry, and its width and height."""
        rows = self._rows.setdefault(geometry, {})
        return rows.setdefault((position, path), len(rows)), self._decoded[position][path].size

    @property
    def area(self) -> int:
        """Pixels of all pictures as they were decoded."""
        return sum(math.prod(picture.size) for pictures in self._decoded for picture in pictures.values())

    def pixels(self, except_for: Collection[Geometry]) -> dict[Geometry, torch.Tensor]:
        """The pixels of every other geometry that was asked for."""
        made = {}
        for geometry in self._rows.keys() - except_for:
            pixels = _shared((len(self._rows[geometry]), *geometry.shape))
            array = pixels.numpy()
            for (position, path), row in self._rows[geometry].items():
                array[row] = geometry.apply(self._decoded[position][path].image)
            made[geometry] = pixels
        return made

    def undone(self, buffer: torch.Tensor) -> tuple[int, dict[Geometry, list[Picture]]]:
        """Write all pictures that the device is to resize into `buffer` `[pixels, 3]` as they are.

        Returns how many pixels that took, and what is to become of each picture.
        """
        wanted = {geometry: rows for geometry, rows in self._rows.items() if geometry.fits_device}
        offsets: dict[tuple[int, str], int] = {}
        array, total = buffer.numpy(), 0
        for position, path in dict.fromkeys(key for rows in wanted.values() for key in rows):
            picture = self._decoded[position][path].pixels.reshape(-1, 3)
            array[total : total + len(picture)] = picture
            offsets[position, path] = total
            total += len(picture)
        pictures = {
            geometry: [geometry.picture(offsets[key], *reversed(self._decoded[key[0]][key[1]].size)) for key in rows]
            for geometry, rows in wanted.items()
        }
        return total, pictures


def _shared(shape: tuple[int, ...]) -> torch.Tensor:
    """An empty tensor of bytes; in a worker process, in memory shared with the job."""
    made = torch.empty(shape, dtype=torch.uint8)
    return made.share_memory_() if get_worker_info() is not None else made


class _Failure(Exception):  # noqa: N818 - becomes a RecordError in the job; exceptions do not travel well
    """A record that cannot be prepared: operators, record id, reason."""

    args: tuple[str, str, str]

    def __init__(self, piece: Piece, record: Record, error: Exception, operator: str | None = None) -> None:
        operators = operator or ", ".join(sorted(piece.operators))
        super().__init__(operators, record.id, f"{type(error).__name__}: {error}")


def pieces_of(shard: Any, records: Sequence[Record], operators: Iterable[str], size: int) -> Iterable[Piece]:
    """The shard's records in runs of `size`; an empty shard is one empty piece."""
    for first in range(0, max(len(records), 1), size):
        some = records[first : first + size]
        yield Piece(shard, first, some, frozenset(operators), first + size >= len(records))

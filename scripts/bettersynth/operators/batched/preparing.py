"""What a worker process does with a few records: read each image once, and make every operator's input of it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import Dataset, get_worker_info

from bettersynth.configuration.operator import Kind, OperatorSpec
from bettersynth.configuration.pool import Reading
from bettersynth.core.records import Record, caption_of, text_of
from bettersynth.operators.base import Paths, RecordOperator, Stats
from bettersynth.operators.batched.filters import BatchedFilter, Fields
from bettersynth.operators.batched.pinned import PinnedSlots
from bettersynth.operators.batched.pixels import MOST_RESIZED, Geometry
from bettersynth.operators.batched.resize import Picture
from bettersynth.operators.batched.types import Part, Piece, Prepared, WorkItem
from bettersynth.pool.images import ImageProblem, ImageReason, open_pixels

logger = logging.getLogger(__name__)

MOST_PIXELS = 16_000_000
"""Of a piece's pictures together; more are resized where they were decoded, at once: they would fill the memory."""
ORDINARY = text_of("a dog sits on a sofa")
"""A text that every operator can score: when one raises for this too, the fault is no record's."""
NOTED = frozenset({ImageReason.UNREADABLE})
"""What may be wrong with a picture and ends no pass: its record has no score."""
SHOWN = 300
"""Length to which the reason of a failed record is cut."""

Made = TypeVar("Made")


class StockOperator:
    """A Data-Juicer filter as it is, called with many records at once.

    One that looks at pictures is given them by the context through which Data-Juicer's fused filters share theirs. One
    whose model is on a GPU, which worker processes cannot reach, is called `in_job`, and reads its pictures itself.
    """

    def __init__(self, built: Any, spec: OperatorSpec, *, captions: bool = False) -> None:
        """With `captions`, texts are read without Data-Juicer's tokens of images and ends."""
        self._built = built
        self._captions = captions
        self._spec = spec
        self.decodes = spec.decodes
        self.in_job = bool(built.use_cuda())
        self._shares = spec.decodes and spec.shares

    @torch.inference_mode()
    def stats(self, texts: list[str], images: list[list[str]], decoded: list[dict[str, Image.Image]]) -> list[Stats]:
        if self._captions:
            texts = [caption_of(text) for text in texts]
        batch = {"text": texts, "images": images, Fields.stats: [{} for _ in texts]}
        if self._shares and not self.in_job:
            found = self._built.compute_stats_batched({**batch, Fields.context: decoded}, context=True)[Fields.stats]
        else:
            found = self._built.compute_stats_batched(batch)[Fields.stats]
        return [self._converted(entry) for entry in found] if self._spec.described else found

    def _converted(self, entry: Stats) -> Stats:
        """The stats as numbers, a truth as 0 or 1; None for what the filter does not write with its parameters."""
        if not entry.keys() & self._spec.stats.keys():
            raise ValueError(f"with its parameters it writes none of its stats: {', '.join(self._spec.stats)}")
        kinds = self._spec.stats.items()
        return {key: _number(entry[key], kind) if key in entry else None for key, kind in kinds}


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
        noted: Collection[ImageReason] = NOTED,
    ) -> None:
        self._filters = filters
        self._others = others
        self._paths = paths
        self._reading = reading
        self._device_resizes = device_resizes
        self._slots = slots
        self._noted = noted

    def __getitem__(self, piece: Piece) -> Prepared:
        prepared = Prepared(piece, len(piece.records))
        try:
            self._prepare(prepared)
        except Failure as failure:
            prepared.failure = failure.args
        prepared.piece = piece._replace(records=())
        return prepared

    def _prepare(self, prepared: Prepared) -> None:
        piece = prepared.piece
        filters = {name: kind for name, kind in self._filters.items() if name in piece.operators}
        others = {name: kind for name, kind in self._others.items() if name in piece.operators}
        looks = bool(filters) or any(kind.decodes for kind in others.values())
        paths = [self._resolved(piece, record) for record in piece.records]
        images = Pictures()
        run: list[int] = []
        for position, mine in enumerate(paths):
            run.append(position)
            if looks:
                with _timed(prepared, "decoding"):
                    images.add(position, self._decoded(position, prepared, mine))
            if images.area > MOST_PIXELS or position == len(paths) - 1:
                self._operate(prepared, run, paths, images, others, filters)
                run = []
                if images.area > MOST_PIXELS:  # large pictures are not kept for those after them
                    with _timed(prepared, "decoding"):
                        images.resize()
        with _timed(prepared, "decoding"):
            if self._device_resizes and images.may_travel:
                prepared.pictures = self._leave(images, prepared)
            prepared.pixels = images.pixels(except_for=prepared.pictures)

    def _operate(
        self,
        prepared: Prepared,
        run: list[int],
        paths: list[list[str]],
        images: Pictures,
        others: Mapping[str, RecordOperator],
        filters: Mapping[str, BatchedFilter],
    ) -> None:
        """Every operator over the records at these positions."""
        whole = [position for position in run if prepared.piece.first + position not in prepared.unreadable]
        for name, other in others.items():
            if self.runs_in_job(name):
                continue
            with _timed(prepared, name):
                self._stats(name, other, prepared, whole if other.decodes else run, paths, images)
        for name, kind in filters.items():
            with _timed(prepared, name):
                self._plan(name, kind, prepared, whole, paths, images)

    def runs_in_job(self, name: str) -> bool:
        """Whether an operator's stats are made by the job, not by a worker process."""
        return bool(getattr(self._others.get(name), "in_job", False))

    def make_in_job(self, prepared: Prepared, records: Sequence[Record]) -> None:
        """Add the stats of the operators that run in the job. `records` are the piece's."""
        due = sorted(filter(self.runs_in_job, prepared.piece.operators))
        if not due:
            return
        prepared.piece = prepared.piece._replace(records=records)
        paths = [self._resolved(prepared.piece, record) for record in records]
        whole = [at for at in range(len(records)) if prepared.piece.first + at not in prepared.unreadable]
        for name in due:
            with _timed(prepared, name):
                self._stats(name, self._others[name], prepared, whole, paths, Pictures())
        prepared.piece = prepared.piece._replace(records=())

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
            raise Failure(piece, record, problem) from None

    def _decoded(self, position: int, prepared: Prepared, paths: list[str]) -> dict[str, Decoded]:
        """The record's pictures by path; none when one is damaged, which is noted. Other problems are failures."""
        try:
            return {path: Decoded(open_pixels(path, self._reading)) for path in dict.fromkeys(paths)}
        except ImageProblem as problem:
            if problem.reason not in self._noted:
                raise Failure(prepared.piece, prepared.piece.records[position], problem) from None
            prepared.unreadable[prepared.piece.first + position] = problem.detail
            return {}

    def _stats(
        self,
        name: str,
        operator: RecordOperator,
        prepared: Prepared,
        chosen: list[int],
        paths: list[list[str]],
        images: Pictures,
    ) -> None:
        """Note the records' stats."""
        piece = prepared.piece

        def stats(positions: list[int]) -> list[Stats]:
            texts = [piece.records[position].text for position in positions]
            decoded = [images.of(position) for position in positions]
            return operator.stats(texts, [paths[position] for position in positions], decoded)

        def ordinary() -> None:
            operator.stats([ORDINARY], [[]], [{}])

        made = _each(name, prepared, chosen, stats, ordinary)
        prepared.stats.setdefault(name, []).extend((piece.first + at, entry) for at, entry in made.items())

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
        piece = prepared.piece
        known, jobs = prepared.parts.setdefault(name, []), prepared.jobs.setdefault(name, [])

        def plan(positions: list[int]) -> list[list[Part]]:
            return kind.plan([piece.records[at].text for at in positions], [paths[at] for at in positions])

        def ordinary() -> None:
            kind.plan([ORDINARY], [["ordinary"]])

        for position, parts in _each(name, prepared, whole, plan, ordinary).items():
            known.append((piece.first + position, [part.value for part in parts]))
            for number, part in enumerate(parts):
                for path in part.images:
                    row, size = images.row(kind.geometry, position, path)
                    jobs.append(WorkItem(piece.shard, piece.first + position, number, row, part.text, size))


def _each(
    name: str,
    prepared: Prepared,
    positions: list[int],
    make: Callable[[list[int]], list[Made]],
    ordinary: Callable[[], None],
) -> dict[int, Made]:
    """What `make` gives for each position; when it raises, they are taken one by one.

    A record that it raises for is noted as failed, with the reason. It is a Failure, though, when the machine may be
    to blame (files, imports, memory), or when the operator raises for an `ordinary` record, too.
    """
    try:
        return dict(zip(positions, make(positions), strict=True)) if positions else {}
    except Exception:
        logger.debug("%s: %d records are taken one by one", name, len(positions), exc_info=True)
    made = {}
    for position in positions:
        try:
            [made[position]] = make([position])
        except Exception as error:
            failure = Failure(prepared.piece, prepared.piece.records[position], error, name)
            if isinstance(error, OSError | ImportError | MemoryError) and not isinstance(error, TimeoutError):
                raise failure from error
            try:
                ordinary()
            except Exception:
                raise failure from error
            prepared.failed.setdefault(name, {})[prepared.piece.first + position] = failure.args[2][:SHOWN]
    return made


@contextmanager
def _timed(prepared: Prepared, part: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    prepared.seconds[part] = prepared.seconds.get(part, 0.0) + time.perf_counter() - started


def _number(value: Any, kind: Kind) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    return [float(one) for one in value] if kind == "numbers" else float(value)


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

    def __init__(self) -> None:
        self._decoded: dict[tuple[int, str], Decoded] = {}
        self._rows: dict[Geometry, dict[tuple[int, str], int]] = {}
        self._made: dict[Geometry, list[npt.NDArray[np.uint8]]] = {}
        self.area = 0
        """Pixels of all pictures that are here as they were decoded."""

    def add(self, position: int, pictures: Mapping[str, Decoded]) -> None:
        """Take a record's pictures in, by path."""
        self._decoded |= {(position, path): picture for path, picture in pictures.items()}
        self.area += sum(math.prod(picture.size) for picture in pictures.values())

    def of(self, position: int) -> dict[str, Image.Image]:
        """A record's pictures by path."""
        return {path: one.image for (at, path), one in self._decoded.items() if at == position}

    def row(self, geometry: Geometry, position: int, path: str) -> tuple[int, tuple[int, int]]:
        """The picture's row in the pixels of this geometry, and its width and height."""
        rows = self._rows.setdefault(geometry, {})
        return rows.setdefault((position, path), len(rows)), self._decoded[position, path].size

    @property
    def may_travel(self) -> bool:
        """Whether the device may resize the pictures: all are here, and not too much is to be made of any."""
        sizes = {geometry: [self._decoded.get(key) for key in rows] for geometry, rows in self._rows.items()}
        return self.area <= MOST_PIXELS and all(
            one is not None and math.prod(geometry.resized(*reversed(one.size))) <= MOST_RESIZED
            for geometry, pictures in sizes.items()
            for one in pictures
        )

    def resize(self) -> None:
        """Make the pixels of every geometry now, and keep no picture as it was decoded."""
        for geometry, rows in self._rows.items():
            made = self._made.setdefault(geometry, [])
            made += [geometry.apply(self._decoded[key].image) for key in list(rows)[len(made) :]]
        self._decoded.clear()
        self.area = 0

    def pixels(self, except_for: Collection[Geometry]) -> dict[Geometry, torch.Tensor]:
        """The pixels of every other geometry that was asked for."""
        found = {}
        for geometry in self._rows.keys() - except_for:
            pixels = _shared((len(self._rows[geometry]), *geometry.shape))
            array, made = pixels.numpy(), self._made.get(geometry, [])
            for key, row in self._rows[geometry].items():
                array[row] = made[row] if row < len(made) else geometry.apply(self._decoded[key].image)
            found[geometry] = pixels
        return found

    def undone(self, buffer: torch.Tensor) -> tuple[int, dict[Geometry, list[Picture]]]:
        """Write all pictures that the device is to resize into `buffer` `[pixels, 3]` as they are.

        Returns how many pixels that took, and what is to become of each picture.
        """
        wanted = {geometry: rows for geometry, rows in self._rows.items() if geometry.fits_device}
        offsets: dict[tuple[int, str], int] = {}
        array, total = buffer.numpy(), 0
        for position, path in dict.fromkeys(key for rows in wanted.values() for key in rows):
            picture = self._decoded[position, path].pixels.reshape(-1, 3)
            array[total : total + len(picture)] = picture
            offsets[position, path] = total
            total += len(picture)
        pictures = {
            geometry: [geometry.picture(offsets[key], *reversed(self._decoded[key].size)) for key in rows]
            for geometry, rows in wanted.items()
        }
        return total, pictures


def _shared(shape: tuple[int, ...]) -> torch.Tensor:
    """An empty tensor of bytes; in a worker process, in memory shared with the job."""
    made = torch.empty(shape, dtype=torch.uint8)
    if get_worker_info() is not None:
        with suppress(RuntimeError):  # where there is no room, it goes through a pipe
            made.share_memory_()
    return made


class Failure(Exception):  # noqa: N818 - becomes a RecordError in the job; exceptions do not travel well
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

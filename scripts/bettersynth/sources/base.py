"""What all generators have in common: what comes of a record, and how images are opened for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from bettersynth.core.own import scratch_folder
from bettersynth.core.records import Record
from bettersynth.pool.images import ImageProblem, ImageReason, ImageRoots
from bettersynth.runtime import patches
from bettersynth.runtime.patches.transformers import refuse_code

if TYPE_CHECKING:
    from PIL.Image import Image


class GeneratorError(RuntimeError):
    """A record stopped the generator; the message names it."""


class Generation(NamedTuple):
    """What became of a record: its new version (or several), or the reason why there is none."""

    records: list[Record]
    reason: str | None = None
    candidates: Sequence[Sequence[str]] = ()
    """Captions that were chosen among, for each image, where there were several; kept in the journal alone."""


Made = dict[int, Generation]
"""Generations of some of the records that a generator was given, by their places."""


class Generator(Protocol):
    """Makes new records, some at a time."""

    facts: dict[str, Any]
    """All that decides a generation apart from the record; of one that does not resume, also what it did."""
    resumes: bool
    """Whether generations are dear: they are then kept in a journal as they get done, and used again."""

    def open(self) -> None:
        """Open its model now, where it has one."""

    def make(self, records: Sequence[Record]) -> Iterator[Made]:
        """Generations as they get done, every record's once."""


def image_key(record: Record, number: int) -> str:
    """What an image's random numbers are drawn from: the record's id, and the image's number after the first."""
    return record.id if number == 0 else f"{record.id}#{number}"


def opened_images(record: Record, roots: ImageRoots) -> Iterator[Image]:
    """The record's images, one after the other. Raises ImageProblem for a damaged one.

    Raises GeneratorError for a file that is missing (the folder may be unreachable just now) or another than was read.
    """
    for image in record.images:
        try:
            yield roots.open(record.image_root, image)
        except ImageProblem as problem:
            if problem.reason in (ImageReason.MISSING, ImageReason.CHANGED):
                raise GeneratorError(f"record {record.id}: {problem}; bring it back and run again") from problem
            raise


def prepare_offline() -> None:
    """Keep the libraries that load models off the network."""
    with scratch_folder() as cache:
        patches.prepare(cache)
        refuse_code()

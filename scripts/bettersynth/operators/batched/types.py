"""What passes between the steps of a pass: parts of records, pieces of shards, what workers prepared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from bettersynth.core.records import Record
from bettersynth.operators.base import Stats
from bettersynth.operators.batched.pixels import Geometry
from bettersynth.operators.batched.resize import Picture

Tokens = tuple[int, ...]


class Part(NamedTuple):
    """One value of a record's stat: made of one score for each image, or known without looking."""

    images: Sequence[str]
    text: Any = None
    value: float | None = None


class Piece(NamedTuple):
    """Some of a shard's records, and the operators that are to score them."""

    shard: Any
    first: int
    """Position of the first of them in the shard."""
    records: Sequence[Record]
    operators: frozenset[str]
    last: bool
    """Whether the shard ends with it."""
    slot: int | None = None
    """Where the worker may leave its pictures for the device."""


class WorkItem(NamedTuple):
    """One image of one part of a record, to be scored by a model."""

    shard: Any
    record: int
    """Position in the shard."""
    part: int
    row: int
    """Row of the image in the piece's pixels of the operator's geometry."""
    text: Any
    size: tuple[int, int]
    """Width and height of the image as it was decoded."""


@dataclass
class Prepared:
    """A piece after its worker; positions count from the shard's first record."""

    piece: Piece
    """Without its records, which the job has."""
    records: int
    """How many these are."""
    pixels: dict[Geometry, torch.Tensor] = field(default_factory=dict)
    """uint8 `[images, height, width, 3]`, where the worker resized."""
    buffer: torch.Tensor | None = None
    """uint8 `[pixels, 3]` of the images as they were decoded, where the device resizes and they fit into no slot."""
    in_slot: int = 0
    """How many of these pixels lie in the piece's slot instead."""
    pictures: dict[Geometry, list[Picture]] = field(default_factory=dict)
    """Which of them, and how."""
    jobs: dict[str, list[WorkItem]] = field(default_factory=dict)
    """Operator -> what its model is to score."""
    parts: dict[str, list[tuple[int, list[float | None]]]] = field(default_factory=dict)
    """Operator -> `(position, the value of each part where it is known)` of each record."""
    stats: dict[str, list[tuple[int, Stats]]] = field(default_factory=dict)
    """Operator without a model on the device -> `(position, stats)` of each record."""
    unreadable: dict[int, str] = field(default_factory=dict)
    """Position -> what is wrong with an image of this record."""
    failed: dict[str, dict[int, str]] = field(default_factory=dict)
    """Operator -> position -> why it cannot score this record."""
    failure: tuple[str, str, str] | None = None
    """Operators, record id and reason, when the job cannot go on."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of this process for `decoding` and for each operator's own preparation."""

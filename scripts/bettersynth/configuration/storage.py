"""What a storage is: how records and pictures lie in files of one kind, and how they are read there, in place.

A storage is one module of `bettersynth.pool.storages`, or a plug-in, which holds one object of a subclass of `Storage`.
Which one reads a file is told by how the file's name ends; nothing else asks for its name. Nothing is unpacked: a
picture in an archive is called by the archive's path and its own within it (`shards/00000.tar/000000012.jpg`), and read
from where it lies.

This module and the storages are read when the graph is built: what is slow to import is imported where it is used.
"""

from __future__ import annotations

import glob
import os
import re
from abc import ABC
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, NamedTuple

from bettersynth.configuration.registry import instances
from bettersynth.core.raw import RawLine

if TYPE_CHECKING:
    from bettersynth.configuration.pool import PoolFile

PACKAGE = "bettersynth.pool.storages"
MOST_BYTES = 1 << 28
"""Bytes of the largest member that is read: a picture of that size would not be opened either."""


class ArchiveError(OSError):
    """An archive that cannot be read as a whole: it breaks off, or is none; the message names it."""


class MemberError(Exception):
    """A member that is not there, or is not read; the message names it and its archive."""


class Member(NamedTuple):
    """What lies in an archive under one name."""

    name: str
    """Relative, `/` between its parts, none of them `..`."""
    problem: str = ""
    """Why it is not read, if it is not: a link, sparse, encrypted."""
    place: tuple[int, ...] = ()
    """Where its bytes lie: numbers that its storage understands, the offset first."""


class Container(NamedTuple):
    """A file of a pattern, and what its members' names begin with in records."""

    path: Path
    name: str


class Contents(NamedTuple):
    """What a file holds, at a first look."""

    records: int
    fields: tuple[str, ...]
    """What a record there has: keys, columns, extensions."""
    keys: dict[str, str]
    """How its entry in `pool.files` has to say where a record's parts are."""


class Storage(ABC):
    """How records, pictures or both lie in files whose names end in one of `endings`."""

    endings: ClassVar[tuple[str, ...]]
    form: ClassVar[str]
    """What such a file is, in words."""
    keys: ClassVar[frozenset[str]] = frozenset()
    """Keys of an entry of `pool.files` that mean something here, beside path, name and shards."""
    holds_records: ClassVar[bool] = True
    holds_pictures: ClassVar[bool] = False
    """Whether records' pictures lie in the same files."""
    place: ClassVar[tuple[str, ...]] = ()
    """Names of the numbers that say where a member lies."""

    # as a raw file of the pool
    def problem(self, path: Path) -> str | None:
        """What is wrong with a file, from its first bytes; None when nothing is, or it cannot be opened."""
        return None

    def lines(self, file: PoolFile, containers: Iterable[Container]) -> Iterator[RawLine]:
        """Every record as a line of Data-Juicer's or LLaVA's form, numbered from 1 through all of the containers.

        Raises ValueError or OSError where it cannot be known how many there are.
        """
        raise NotImplementedError(f"{self.form} holds no records")

    def contents(self, path: Path) -> Contents:
        """What a file holds. Raises ValueError or OSError."""
        raise NotImplementedError(f"{self.form} holds no records")

    # as an archive of pictures
    def members(self, file: BinaryIO, path: Path) -> Iterator[Member]:
        """What lies in an archive, folders left out, in its order. Raises ArchiveError."""
        raise NotImplementedError(f"{self.form} holds no pictures")

    def read(self, file: BinaryIO, path: Path, member: Member) -> bytes:
        """A member's bytes; may be asked by several threads. Raises MemberError or OSError."""
        raise NotImplementedError(f"{self.form} holds no pictures")


@cache
def storages() -> tuple[Storage, ...]:
    """Those that modules hold, plug-ins among them."""
    return tuple(instances(PACKAGE, Storage))


@cache
def _by_ending() -> dict[str, Storage]:
    return {ending: storage for storage in storages() for ending in storage.endings}


def storage_of(path: str | Path) -> Storage:
    """The storage that reads a file of this name: by its ending, or lines."""
    name = os.path.basename(path).lower()  # noqa: PTH119 - asked for every archive's members
    return next((storage for ending, storage in _by_ending().items() if ending and name.endswith(ending)), _default())


def _default() -> Storage:
    return _by_ending()[""]


def is_archive(path: str | Path) -> bool:
    """Whether a file of this name may hold pictures."""
    return storage_of(path).holds_pictures or not storage_of(path).holds_records


# --- patterns ------------------------------------------------------------------------------------

_BRACE = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
MOST_FILES = 1_000_000


def expand(pattern: str) -> list[str]:
    """The files that a path of `pool.files` names, in order: braces (`{00000..00331}`, `{a,b}`) and `*`, `?`, `[…]`.

    A file of that very name is meant before any pattern; files that braces name need not be there.
    """
    if os.path.lexists(pattern):
        return [pattern]
    found: list[str] = []
    for path in _braces(pattern):
        found += sorted(glob.glob(path)) if glob.has_magic(path) else [path]  # noqa: PTH207 - in any folder
    return list(dict.fromkeys(found))


def folder_of(pattern: str) -> str:
    """The folder that all files of a pattern lie in, or below."""
    fixed = re.split(r"[*?\[{]", pattern, maxsplit=1)[0]
    return os.path.dirname(fixed) or "."  # noqa: PTH120 - of a pattern


def _braces(pattern: str) -> list[str]:
    found = _BRACE.search(pattern)
    if found is None:
        return [pattern]
    inner = _RANGE.fullmatch(found[1])
    parts = _counted(*inner.groups()) if inner else found[1].split(",")
    return [each for part in parts for each in _braces(pattern[: found.start()] + part + pattern[found.end() :])]


def _counted(first: str, last: str) -> list[str]:
    """The numbers of a range, as many digits as its first."""
    if abs(int(last) - int(first)) >= MOST_FILES:
        raise ValueError(f"{{{first}..{last}}}: more than {MOST_FILES:,} files")
    step = 1 if int(first) <= int(last) else -1
    return [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + step, step)]


@cache
def keys_of_storages() -> dict[str, Any]:
    """Key of an entry of `pool.files` → forms of the storages that understand it."""
    found: dict[str, list[str]] = {}
    for storage in storages():
        for key in sorted(storage.keys):
            found.setdefault(key, []).append(storage.form)
    return found

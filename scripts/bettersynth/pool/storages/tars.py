"""Tar files: WebDataset's samples, or pictures beside a JSON.

A tar has no index of its own: its headers are walked through once. Ordinary headers are read here, one read each; long
names, sparse files and the like are left to Python's `tarfile`, started at that header.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from bettersynth.configuration.pool import PoolFile
from bettersynth.configuration.storage import (
    MOST_BYTES,
    ArchiveError,
    Container,
    Contents,
    Member,
    MemberError,
    Storage,
)
from bettersynth.core.raw import RawLine
from bettersynth.pool.storages._names import clean_name
from bettersynth.pool.storages._samples import sample_contents, sample_lines

BLOCK = 512
ZEROS = bytes(BLOCK)
EXTENDED = b"xgLK"
"""Kinds of headers that say something of the next one."""
MOST_EXTENDED = 1 << 20
"""Bytes of the longest of these that is read."""
LOOKED_AT = 1 << 20
"""Bytes after an archive's end that are looked at."""


class Tars(Storage):
    """WebDataset's tars, read in place; a sample is a run of files whose names begin alike."""

    endings = (".tar",)
    form = "WebDataset"
    keys = frozenset({"caption", "image", "id"})
    holds_pictures = True
    place = ("offset", "size")

    def problem(self, path: Path) -> str | None:
        with path.open("rb") as file:
            start = file.read(BLOCK)
        if start[:2] == b"\x1f\x8b" or start[:4] == b"\x28\xb5\x2f\xfd":
            return f"{path}: compressed; tars are read in place, so unpack it to a plain one: gunzip or unzstd"
        return None if start[257:262] == b"ustar" or _plain(start) else f"{path}: no tar archive"

    def lines(self, file: PoolFile, containers: Iterable[Container]) -> Iterator[RawLine]:
        return sample_lines(file, containers)

    def contents(self, path: Path) -> Contents:
        return sample_contents(path)

    def members(self, file: BinaryIO, path: Path) -> Iterator[Member]:
        end, position, last = os.fstat(file.fileno()).st_size, 0, "its beginning"
        while True:
            header = os.pread(file.fileno(), BLOCK, position)
            if header == ZEROS:
                _check_end(file, path, position, end)
                return
            if len(header) < BLOCK:
                raise _broken(path, position, f"it has no end mark after {last}")
            member, following = _plain_member(header, position) or _by_library(file, path, header, position, last)
            if member is not None:
                last = member.name
                if not member.problem and sum(member.place) > end:
                    raise _broken(
                        path, position, f"{last} is to have {member.place[1]:,} bytes, and the file ends before"
                    )
                yield member
            if following <= position:
                raise _broken(path, position, f"the header after {last} leads back")
            position = following

    def read(self, file: BinaryIO, path: Path, member: Member) -> bytes:
        offset, size = member.place
        if size > MOST_BYTES:
            raise MemberError(
                f"{path}: its member {member.name} has {size:,} bytes; more than {MOST_BYTES:,} are not read"
            )
        data = os.pread(file.fileno(), size, offset)
        if len(data) != size:
            raise MemberError(f"{path}: its member {member.name} is cut short")
        return data


def _plain(header: bytes) -> tuple[str, int] | None:
    """Name and size of an ordinary file from its header; None where there is more to know."""
    if header[156:157] not in (b"0", b"\0") or header[124] & 0x80:
        return None
    try:
        size, checksum = int(header[124:136].strip(b"\0 "), 8), int(header[148:156].strip(b"\0 "), 8)
    except ValueError:
        return None
    if sum(header) - sum(header[148:156]) + 8 * ord(" ") != checksum or size < 0:
        return None
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    return None if name.endswith(b"/") else (os.fsdecode(name), size)


def _plain_member(header: bytes, position: int) -> tuple[Member | None, int] | None:
    if (found := _plain(header)) is None:
        return None
    name, problem = clean_name(found[0])
    start = position + BLOCK
    return Member(name, problem, (start, found[1])), start + _blocks(found[1])


def _blocks(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _by_library(file: BinaryIO, path: Path, header: bytes, position: int, last: str) -> tuple[Member | None, int]:
    """What `tarfile` makes of the header there, and where the next one is."""
    try:
        if header[156:157] and header[156:157] in EXTENDED:
            size = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").size
            if not 0 <= size <= MOST_EXTENDED:
                raise _broken(path, position, f"the extended header after {last} has {size:,} bytes")
            if b"=" in (said := os.pread(file.fileno(), size, position + BLOCK)) and header[156:157] == b"g":
                _refuse_global(said, path, position)
        file.seek(position)
        tar = tarfile.TarFile(fileobj=file, mode="r")
        info = tar.next()
    except ArchiveError:
        raise
    except (tarfile.TarError, ValueError, OSError, RecursionError, OverflowError) as error:
        raise _broken(path, position, f"the header after {last} is damaged ({error})") from error
    if info is None:
        raise _broken(path, position, f"the header after {last} is damaged")
    if info.isdir():
        return None, tar.offset
    name, problem = clean_name(info.name)
    if info.issparse():
        problem = "is a sparse file"
    elif info.islnk() or info.issym():
        problem = f"is a link to {info.linkname}"
    elif not info.isreg():
        problem = "is a device or a pipe"
    if info.size < 0:
        raise _broken(path, position, f"{name} is to have {info.size:,} bytes")
    return Member(name, problem, (info.offset_data, 0 if problem else info.size)), tar.offset


def _refuse_global(said: bytes, path: Path, position: int) -> None:
    """A header for all that follow may hold a remark, not names or sizes."""
    if any(word in said for word in (b" path=", b" size=", b" linkpath=", b" GNU.sparse")):
        raise _broken(path, position, "one header gives all files after it one name or size")


def _check_end(file: BinaryIO, path: Path, position: int, end: int) -> None:
    """Raise ArchiveError for more files after the end mark: programs differ in whether they see them."""
    rest = os.pread(file.fileno(), min(LOOKED_AT, end - position), position)
    if rest.strip(b"\0"):
        raise _broken(path, position, "there is more after its end mark; join archives by `tar --concatenate`")


def _broken(path: Path, position: int, what: str) -> ArchiveError:
    return ArchiveError(f"{path}: no whole tar archive at byte {position:,}: {what}; write or copy it again")


TARS = Tars()

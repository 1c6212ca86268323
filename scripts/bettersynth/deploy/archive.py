"""An archive of files as `.tar.zst`, in one part or several, with a manifest; made and opened again after a break.

Its first member, `bundle.json`, lists every file with its size and sha256. Every part is a whole `.tar.zst` of its own,
so `tar` opens it too. The same files give the same bytes.

An archive may come from anywhere: what it says of itself is checked before room is made for it, and no more is read of
it than it listed.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, BinaryIO, NamedTuple

import zstandard
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

from bettersynth.core.errors import PersonError
from bettersynth.core.parallel import map_threads
from bettersynth.core.progress import progress
from bettersynth.core.publish import publish, sha256_file, sha256_json

MANIFEST = "bundle.json"
SUFFIX = ".tar.zst"
LONG_AGO = 315532800
"""1980: the time of every member, so that none is newer than another when `tar` unpacks them."""
SHOWN = 10
"""Files that an error lists."""
MOST_PARTS = 999
"""So many have numbers of three digits."""
HEADER_BYTES = 64 << 10
"""More than the tar format itself writes before a member, or after the last."""
HEAD_BYTES, HEAD_RATIO = 4 << 20, 20
"""A list of files is no longer than this, or than so many times the archive: each sha256 alone takes 32 bytes there."""

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Entry(TypedDict):
    """A file, as the manifest lists it."""

    size: Annotated[int, Field(ge=0)]
    sha256: Sha256
    executable: bool


class Head(TypedDict):
    """What the first member of every part says; `bundle` is the sha256 of the manifest, which the first part holds."""

    bundle: Sha256
    part: Annotated[int, Field(ge=0)]
    parts: Annotated[int, Field(ge=1, le=MOST_PARTS)]


class Listed(TypedDict):
    """What the manifest says of the files, whatever the archive is of."""

    files: dict[str, Entry]
    part_bytes: Annotated[int, Field(ge=1)] | None


HEAD, LISTED = TypeAdapter(Head), TypeAdapter(Listed)
HEAD_KEYS = frozenset(Head.__annotations__)


class ArchiveError(PersonError, ValueError):
    """An archive cannot be made, is not whole, or does not go with the files that are here."""


class Piece(NamedTuple):
    """Bytes of a file in a part: all of them, or some where the file is larger than a part."""

    name: str
    start: int
    size: int
    of: int

    @property
    def member(self) -> str:
        """Its name in the tar."""
        return self.name if self.size == self.of else f"{self.name}.from-{self.start:015d}"


def part_path(target: Path, number: int) -> Path:
    """`best.tar.zst`, `best.001.tar.zst` …"""
    if not target.name.endswith(SUFFIX):
        raise ArchiveError(f"{target}: the name of an archive ends in {SUFFIX}")
    stem = target.name.removesuffix(SUFFIX)
    return target if number == 0 else target.with_name(f"{stem}.{number:03d}{SUFFIX}")


def pack(
    target: Path, files: Mapping[str, Path], facts: Mapping[str, Any], part_bytes: int | None = None
) -> list[Path]:
    """Write files (name in the archive → path) and a manifest with `facts`; return the paths of the parts.

    A part holds at most `part_bytes`, before compression. Parts that an earlier try made of the same files stay. The
    first part, with the manifest, is written last.
    """
    names = sorted(files)
    digests = map_threads(lambda name: sha256_file(files[name]), names, os.cpu_count() or 1)
    entries: dict[str, dict[str, Any]] = {
        name: {"size": files[name].stat().st_size, "sha256": digest, "executable": os.access(files[name], os.X_OK)}
        for name, digest in zip(names, digests, strict=True)
    }
    manifest = {**facts, "files": entries, "part_bytes": part_bytes}
    if part_bytes and sum(map(_bytes, entries.values())) > part_bytes * MOST_PARTS:
        raise ArchiveError(f"{target}: more than {MOST_PARTS} parts; choose a larger size than {part_bytes:,}")
    bundle, parts = sha256_json(manifest), part_pieces(manifest)
    for number in reversed(range(len(parts))):
        path = part_path(target, number)
        head = {"bundle": bundle, "part": number, "parts": len(parts), **({} if number else manifest)}
        if not (path.exists() and read_head(path) == head):
            with publish(path) as temporary, _writer(temporary) as tar:
                _add(tar, MANIFEST, io.BytesIO(text := json.dumps(head, sort_keys=True).encode()), len(text))
                for piece in progress(parts[number], sum(map(_size, parts[number])), f"{path.name}, bytes", _size):
                    with files[piece.name].open("rb") as source:
                        source.seek(piece.start)
                        _add(tar, piece.member, source, piece.size, executable=entries[piece.name]["executable"])
    return [part_path(target, number) for number in range(len(parts))]


def part_pieces(manifest: Mapping[str, Any]) -> list[list[Piece]]:
    """What each part of an archive holds, in order."""
    most = manifest["part_bytes"]
    parts: list[list[Piece]] = [[]]
    room = most
    for name, entry in sorted(manifest["files"].items()):
        start, size = 0, entry["size"]
        while start < size or start == size == 0:
            if most and parts[-1] and room < min(size - start, most):
                parts.append([])
                room = most
            taken = min(size - start, most) if most else size - start
            parts[-1].append(Piece(name, start, taken, size))
            start += taken
            room = room - taken if most else None
            if not size:
                break
    return parts


def read_head(path: Path) -> dict[str, Any]:
    """The first member of a part. Raises ArchiveError for a file that is no part of an archive."""
    try:
        with _reader(path) as (tar, source):
            most = HEAD_BYTES + HEAD_RATIO * path.stat().st_size
            source.allow(most + HEADER_BYTES)
            member = tar.next()
            if member is None or member.name != MANIFEST:
                raise ArchiveError(f"{path}: no bundle: its first member is not {MANIFEST}")
            if member.size > most:
                raise ArchiveError(f"{path}: no bundle: {member.size:,} bytes of {MANIFEST} in a file of this size")
            head: dict[str, Any] = json.load(_content(tar, member))
            HEAD.validate_python(head, strict=True)
            return head
    except (OSError, tarfile.TarError, zstandard.ZstdError, RecursionError, ValueError) as error:
        if isinstance(error, ArchiveError):
            raise
        what = first_problem(error) if isinstance(error, ValidationError) else error
        raise ArchiveError(f"{path}: no bundle, or not whole: {what}; copy it here again") from error


def read_manifest(target: Path) -> dict[str, Any]:
    """The manifest of an archive, whose parts are all there and belong together."""
    if not target.is_file():
        raise ArchiveError(f"{target}: no such file")
    head = read_head(target)
    if "files" not in head:
        raise ArchiveError(f"{target}: a later part; give the first one, without a number")
    manifest = {name: value for name, value in head.items() if name not in HEAD_KEYS}
    _check(target, manifest)
    if head["part"] != 0 or head["bundle"] != sha256_json(manifest) or head["parts"] != len(part_pieces(manifest)):
        raise ArchiveError(f"{target}: its list of files is not the one it was made with; copy it here again")
    parts = [part_path(target, number) for number in range(1, head["parts"])]
    if gone := [part.name for part in parts if not part.exists()]:
        raise ArchiveError(f"{target}: parts are missing: {', '.join(gone)}; copy them here, beside it")
    for part in parts:
        if read_head(part)["bundle"] != head["bundle"]:
            raise ArchiveError(f"{part}: part of another bundle than {target.name}; copy it here again")
    return head


def _check(target: Path, manifest: Mapping[str, Any]) -> None:
    """Raise ArchiveError for a list that no archive of ours has."""
    try:
        LISTED.validate_python(manifest, strict=True)
    except ValidationError as error:
        raise ArchiveError(f"{target}: {first_problem(error)}; copy it here again") from error
    files, most = manifest["files"], manifest["part_bytes"]
    if most and sum(map(_bytes, files.values())) > most * MOST_PARTS:
        raise ArchiveError(f"{target}: its files do not go into {MOST_PARTS} parts of {most:,} bytes")
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or name == MANIFEST:
            raise ArchiveError(f"{target}: {name!r}: leads out of the folder it is unpacked in")
        if path.as_posix() != name or not name.isprintable():
            raise ArchiveError(f"{target}: {name!r}: no name of a file")
        if folder := next((folder for folder in path.parents if folder.as_posix() in files), None):
            raise ArchiveError(f"{target}: {folder}: both a file and a folder")


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong with a manifest."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def differing(manifest: Mapping[str, Any], folder: Path) -> tuple[list[str], list[str]]:
    """Files of the archive that are not in the folder yet, and those that are there with other bytes."""
    files = manifest["files"]
    here = [name for name in files if (folder / name).is_file()]
    digests = map_threads(lambda name: sha256_file(folder / name), here, os.cpu_count() or 1)
    other = [name for name, digest in zip(here, digests, strict=True) if digest != files[name]["sha256"]]
    return [name for name in files if name not in set(here)], other


def unpack(target: Path, manifest: Mapping[str, Any], folder: Path, wanted: Container[str]) -> None:
    """Put the wanted files of the archive into the folder, each whole or not at all, all with one time: now.

    Raises ArchiveError for a part that was damaged on the way.
    """
    size = sum(entry["size"] for name, entry in manifest["files"].items() if name in wanted)
    if size > (free := shutil.disk_usage(folder).free):
        raise ArchiveError(f"{folder}: {size / 2**30:.1f} GiB are needed, {free / 2**30:.1f} are free")
    now = time.time_ns()
    for number, pieces in enumerate(part_pieces(manifest)):
        path = part_path(target, number)
        try:
            with _reader(path) as (tar, source):
                source.allow(HEADER_BYTES)
                if (head := tar.next()) is None:
                    raise ArchiveError("it is empty")
                source.allow(min(head.size, HEAD_BYTES + HEAD_RATIO * path.stat().st_size))
                for piece in progress(pieces, sum(map(_size, pieces)), f"{path.name}, bytes", _size):
                    source.allow(HEADER_BYTES)
                    member = tar.next()
                    if member is None or (member.name, member.size) != (piece.member, piece.size):
                        raise ArchiveError("a member is not where it should be")
                    source.allow(piece.size)
                    if piece.name in wanted:
                        _take(_content(tar, member), piece, manifest["files"][piece.name], folder / piece.name, now)
        except (OSError, tarfile.TarError, zstandard.ZstdError, ArchiveError) as error:
            raise ArchiveError(
                f"{path}: damaged on the way ({error}); copy it here again, then the same command"
            ) from error


def _take(content: BinaryIO, piece: Piece, entry: Mapping[str, Any], path: Path, now: int) -> None:
    """Add a piece to a file that is being unpacked; after the last, compare it and give it its name."""
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("r+b" if piece.start else "wb") as sink:
            sink.seek(piece.start)
            shutil.copyfileobj(content, sink, 1 << 20)
        if piece.start + piece.size < piece.of:
            return
        if (found := sha256_file(partial)) != entry["sha256"]:
            raise ArchiveError(f"{piece.name}: sha256 {found}, expected {entry['sha256']}")
        if entry["executable"]:
            partial.chmod(partial.stat().st_mode | 0o111)
        os.utime(partial, ns=(now, now))
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


class _Allowed(io.RawIOBase):
    """A stream of which no more can be read than was allowed: a few bytes can say, or unpack into, any number."""

    def __init__(self, stream: zstandard.ZstdDecompressionReader) -> None:
        self._stream, self._left = stream, tarfile.RECORDSIZE  # tar reads whole records

    def allow(self, size: int) -> None:
        """Allow so many bytes more."""
        self._left += size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveError("it holds more than it lists")
        return data


@contextmanager
def _writer(path: Path) -> Iterator[tarfile.TarFile]:
    with (
        path.open("wb") as file,
        zstandard.ZstdCompressor(level=3).stream_writer(file) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        yield tar


@contextmanager
def _reader(path: Path) -> Iterator[tuple[tarfile.TarFile, _Allowed]]:
    """A part, and the stream under it, which opens with room for the first header."""
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        allowed = _Allowed(stream)
        allowed.allow(HEADER_BYTES)
        with tarfile.open(fileobj=allowed, mode="r|") as tar:
            yield tar, allowed


def _add(tar: tarfile.TarFile, name: str, source: BinaryIO, size: int, *, executable: bool = False) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, LONG_AGO, 0o755 if executable else 0o644
    tar.addfile(member, source)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> BinaryIO:
    content = tar.extractfile(member)
    if content is None:
        raise ArchiveError(f"{member.name}: not a file")
    return content  # type: ignore[return-value]


def _size(piece: Piece) -> int:
    return piece.size


def _bytes(entry: Mapping[str, Any]) -> int:
    return int(entry["size"])

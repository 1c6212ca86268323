"""An archive of files as `.tar.zst`, in one part or several, with a manifest; made and opened again after a break.

Its first member, `bundle.json`, lists every file with its size and sha256. Every part is a whole `.tar.zst` of its own,
so `tar` opens it too. The same files give the same bytes.
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
from typing import Any, BinaryIO, NamedTuple

import zstandard

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
        with _reader(path) as tar:
            member = tar.next()
            if member is None or member.name != MANIFEST:
                raise ArchiveError(f"{path}: no bundle: its first member is not {MANIFEST}")
            head: dict[str, Any] = json.load(_content(tar, member))
            return head
    except (OSError, tarfile.TarError, zstandard.ZstdError, ValueError) as error:
        raise ArchiveError(f"{path}: no bundle, or not whole: {error}; copy it here again") from error


def read_manifest(target: Path) -> dict[str, Any]:
    """The manifest of an archive, whose parts are all there and belong together."""
    if not target.is_file():
        raise ArchiveError(f"{target}: no such file")
    head = read_head(target)
    if "files" not in head:
        raise ArchiveError(f"{target}: a later part; give the first one, without a number")
    for name in head["files"]:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or name == MANIFEST:
            raise ArchiveError(f"{target}: {name}: leads out of the folder it is unpacked in")
    parts = [part_path(target, number) for number in range(1, head["parts"])]
    if gone := [part.name for part in parts if not part.exists()]:
        raise ArchiveError(f"{target}: parts are missing: {', '.join(gone)}; copy them here, beside it")
    for part in parts:
        if read_head(part)["bundle"] != head["bundle"]:
            raise ArchiveError(f"{part}: part of another bundle than {target.name}; copy it here again")
    return head


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
            with _reader(path) as tar:
                tar.next()
                for piece in progress(pieces, sum(map(_size, pieces)), f"{path.name}, bytes", _size):
                    if (member := tar.next()) is None or member.name != piece.member:
                        raise ArchiveError("a member is not where it should be")
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


@contextmanager
def _writer(path: Path) -> Iterator[tarfile.TarFile]:
    with (
        path.open("wb") as file,
        zstandard.ZstdCompressor(level=3).stream_writer(file) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        yield tar


@contextmanager
def _reader(path: Path) -> Iterator[tarfile.TarFile]:
    with (
        path.open("rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file) as stream,
        tarfile.open(fileobj=stream, mode="r|") as tar,
    ):
        yield tar


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

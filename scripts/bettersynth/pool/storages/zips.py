"""Pictures in zip files, stored or deflated."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bettersynth.configuration.storage import MOST_BYTES, ArchiveError, Member, MemberError, Storage
from bettersynth.pool.storages._names import clean_name

LOCAL_HEADER = 30
"""Bytes of the header before a member, without its name and extra field."""
SLACK = 256
"""Bytes of name and extra field that are read along."""
READ = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


class Zips(Storage):
    """A zip file beside a JSON; the records name pictures by their names in it."""

    endings = (".zip",)
    form = "a zip file of pictures"
    holds_records = False
    place = ("offset", "stored", "size", "crc", "method")

    def members(self, file: BinaryIO, path: Path) -> Iterator[Member]:
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, OverflowError) as error:
            raise ArchiveError(f"{path}: no whole zip file ({error}); copy it again, compare its checksum") from error
        stored = sum(entry.compress_size for entry in entries)
        if stored > (size := os.fstat(file.fileno()).st_size):
            raise ArchiveError(f"{path}: its members take {stored:,} bytes of {size:,}: they overlap, as in a zip bomb")
        return (_member(entry) for entry in entries if not entry.is_dir())

    def read(self, file: BinaryIO, path: Path, member: Member) -> bytes:
        offset, stored, size, crc, method = member.place
        head = os.pread(file.fileno(), LOCAL_HEADER + len(os.fsencode(member.name)) + SLACK + stored, offset)
        start = LOCAL_HEADER + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        data = head[start : start + stored]
        if len(data) < stored:  # a long name or extra field
            data = os.pread(file.fileno(), stored, offset + start)
        if head[:4] != b"PK\3\4" or len(data) < stored:
            raise _damaged(path, member, "nothing of it lies where the archive says")
        if method == zipfile.ZIP_DEFLATED:
            data = _inflated(data, size, path, member)
        if len(data) != size or zlib.crc32(data) != crc:
            raise _damaged(path, member, "its length or checksum is not what the archive says")
        return data


def _member(entry: zipfile.ZipInfo) -> Member:
    name, problem = clean_name(entry.filename)
    if entry.flag_bits & 1:
        problem = "is encrypted"
    elif entry.compress_type not in READ:
        problem = f"is compressed by method {entry.compress_type}; stored and deflated members are read"
    elif stat.S_ISLNK(entry.external_attr >> 16):
        problem = "is a link"
    elif entry.file_size > MOST_BYTES:
        problem = f"has {entry.file_size:,} bytes; a picture of more than {MOST_BYTES:,} is not read"
    place = (entry.header_offset, entry.compress_size, entry.file_size, entry.CRC, entry.compress_type)
    return Member(name, problem, place)


def _inflated(data: bytes, size: int, path: Path, member: Member) -> bytes:
    """The unpacked bytes, one more than the archive says at most."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return inflater.decompress(data, size + 1)
    except zlib.error as error:
        raise _damaged(path, member, str(error)) from error


def _damaged(path: Path, member: Member, what: str) -> MemberError:
    return MemberError(f"{path}: its member {member.name} is damaged: {what}")


ZIPS = Zips()

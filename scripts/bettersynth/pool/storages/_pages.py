"""Where a Parquet column's values lie in the file: what Arrow does not tell, and what makes one value cheap to read.

Of the format (parquet-format 2.x) as much is understood as columns of pictures are written in: pages of version 1 and
2, values PLAIN or by dictionary, levels as runs. `tests/pool/test_parquet.py` compares it with Arrow's own reading.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from bettersynth.configuration.storage import MOST_BYTES, ArchiveError

DATA, DICTIONARY, DATA_2 = 0, 2, 3
"""Types of pages."""
PLAIN, PLAIN_DICTIONARY, RLE_DICTIONARY = 0, 2, 8
"""Encodings of values."""
CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI", "ZSTD")
"""Compressions that are read, in the order of their numbers in an index."""
MOST_HEADER = 1 << 16
"""Bytes in which a page's header ends."""


class Value(NamedTuple):
    """Where a value lies: in the file, if its page is not compressed, or in its page."""

    offset: int
    size: int
    page: int = -1
    """Where the page's compressed part lies; -1 if `offset` counts in the file."""
    stored: int = 0
    unpacked: int = 0
    codec: int = 0


class Slot(NamedTuple):
    """One place of a column: the row, the number within the row, and the value, unless it is null."""

    row: int
    number: int
    value: Value | None


class Page(NamedTuple):
    """A page's body: its bytes unpacked, and what a value's place in it is made of."""

    body: bytes
    start: int
    """Where the values begin in it."""
    origin: int
    """What is added to a place in the body: where the body lies in the file, or nothing."""
    packed: tuple[int, int, int, int]
    """`page, stored, unpacked, codec` of its values."""

    def value(self, at: int, size: int) -> Value:
        """The value at this place in the body."""
        return Value(self.origin + at, size, *self.packed)


def slots(file: BinaryIO, path: Path, parquet: pq.ParquetFile, column: int) -> Iterator[Slot]:
    """The places of one leaf column, in order. Raises ArchiveError for what is not understood."""
    leaf, row = parquet.schema.column(column), -1
    for group in range(parquet.metadata.num_row_groups):
        chunk, number = parquet.metadata.row_group(group).column(column), 0
        for repetition, value in _Chunk(file, path, chunk, leaf).values():
            row, number = (row, number + 1) if repetition else (row + 1, 0)
            yield Slot(row, number, value)


class _Chunk:
    """The pages of a column in one row group."""

    def __init__(self, file: BinaryIO, path: Path, chunk: Any, leaf: Any) -> None:
        self._file, self._path, self._chunk = file, path, chunk
        self._deepest, self._repeats = leaf.max_definition_level, leaf.max_repetition_level
        self._dictionary: list[Value] = []
        if chunk.compression not in CODECS:
            raise self._odd(f"is compressed by {chunk.compression}; {', '.join(CODECS)} are read")

    def values(self) -> Iterator[tuple[int, Value | None]]:
        """Repetition level and value of every place."""
        starts = [self._chunk.dictionary_page_offset, self._chunk.data_page_offset]
        position, left = min(start for start in starts if start), self._chunk.num_values
        while left > 0:
            head = os.pread(self._file.fileno(), MOST_HEADER, position)
            try:
                header, length = _struct(head, 0)
                stored, unpacked = header[3], header[2]
                if not (0 <= stored <= MOST_BYTES and 0 <= unpacked <= MOST_BYTES):
                    raise ValueError(f"of {max(stored, unpacked):,} bytes; {MOST_BYTES:,} are read")
                body = os.pread(self._file.fileno(), stored, position + length)
                if len(body) < stored:
                    raise ValueError("it breaks off")
                if header[1] == DICTIONARY:
                    page = self._page(body, position + length, unpacked, 0)
                    self._dictionary = list(_plain(page, header[7][1]))
                elif header[1] in (DATA, DATA_2):
                    found = self._data(header, body, position + length)
                    left -= len(found)
                    yield from found
            except (LookupError, TypeError, ValueError, OverflowError) as error:
                raise self._odd(f"has a damaged page ({error})") from error
            position += length + stored

    def _data(self, header: dict[int, Any], body: bytes, position: int) -> list[tuple[int, Value | None]]:
        if header[1] == DATA:
            facts = header[5]
            count, encoding = facts[1], facts[2]
            page = self._page(body, position, header[2], 0)
            repetitions, start = self._sized_levels(page.body, 0, self._repeats, count)
            definitions, start = self._sized_levels(page.body, start, self._deepest, count)
        else:
            facts = header[8]
            count, encoding, before = facts[1], facts[4], facts[6] + facts[5]
            repetitions = _levels(body[: facts[6]], self._repeats, count)
            definitions = _levels(body[facts[6] : before], self._deepest, count)
            is_packed = facts.get(7, True)
            page = self._page(body, position, header[2], before, is_packed=is_packed)
            start = page.start
        here = [level == self._deepest for level in definitions]
        values = iter(self._decoded(page._replace(start=start), encoding, sum(here)))
        return [
            (repetition, next(values) if there else None) for repetition, there in zip(repetitions, here, strict=True)
        ]

    def _page(self, body: bytes, position: int, unpacked: int, before: int, *, is_packed: bool = True) -> Page:
        """The page's body behind its first bytes, which are never compressed, unpacked."""
        codec = CODECS.index(self._chunk.compression)
        if not codec or not is_packed:
            return Page(body, before, position, (-1, 0, 0, 0))
        size = unpacked - before
        plain = unpack(body[before:], size, codec)
        return Page(plain, 0, 0, (position + before, len(body) - before, size, codec))

    def _sized_levels(self, body: bytes, at: int, most: int, count: int) -> tuple[list[int], int]:
        """Levels that begin with their length, and what comes after them."""
        if not most:
            return [0] * count, at
        end = at + 4 + int.from_bytes(body[at : at + 4], "little")
        return _levels(body[at + 4 : end], most, count), end

    def _decoded(self, page: Page, encoding: int, count: int) -> Iterator[Value]:
        if encoding == PLAIN:
            return _plain(page, count)
        if encoding not in (PLAIN_DICTIONARY, RLE_DICTIONARY):
            raise self._odd(f"has values of encoding {encoding}; plain ones and those of a dictionary are read")
        width = page.body[page.start] if count else 0
        numbers = _runs(page.body[page.start + 1 :], width, count)
        return (self._dictionary[number] for number in numbers)

    def _odd(self, what: str) -> ArchiveError:
        return ArchiveError(f"{self._path}: its column {self._chunk.path_in_schema} {what}; write the file again")


def unpack(data: bytes, size: int, codec: int) -> bytes:
    """The bytes behind a compressed part of a page. Raises ValueError."""
    if not 0 <= size <= MOST_BYTES:
        raise ValueError(f"{size:,} bytes")
    if not size:
        return b""
    try:
        return pa.Codec(CODECS[codec].lower()).decompress(data, decompressed_size=size, asbytes=True)
    except OSError as error:
        raise ValueError(str(error)) from None


def _plain(page: Page, count: int) -> Iterator[Value]:
    at = page.start
    for _ in range(count):
        size = int.from_bytes(page.body[at : at + 4], "little")
        if at + 4 + size > len(page.body):
            raise ValueError("a value is longer than its page")
        yield page.value(at + 4, size)
        at += 4 + size


def _levels(data: bytes, most: int, count: int) -> list[int]:
    return _runs(data, most.bit_length(), count) if most else [0] * count


def _runs(data: bytes, width: int, count: int) -> list[int]:
    """Numbers of `width` bits, as runs of one and groups of eight."""
    found: list[int] = []
    at, step = 0, -(-width // 8)
    while len(found) < count:
        header, at = _varint(data, at)
        if header & 1:
            groups = header >> 1
            bits = int.from_bytes(data[at : at + groups * width], "little")
            if len(data) < at + (groups * width if groups * 8 <= count - len(found) else 1) and width:
                raise ValueError("levels break off")
            wanted = min(groups * 8, count - len(found))
            found += [(bits >> (width * place)) & ((1 << width) - 1) for place in range(wanted)]
            at += groups * width
        else:
            number = int.from_bytes(data[at : at + step], "little")
            found += [number] * min(header >> 1, count - len(found))
            at += step
            if not header >> 1:
                raise ValueError("an empty run")
    return found


# --- Thrift's compact protocol, as page headers are written in it --------------------------------


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return number, at
        if shift > 63:
            raise ValueError("a number of too many bytes")


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    number, at = _varint(data, at)
    return (number >> 1) ^ -(number & 1), at


def _struct(data: bytes, at: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """Values of a struct by their fields' numbers, and where it ends."""
    found: dict[int, Any] = {}
    field = 0
    while (head := data[at]) != 0:
        at += 1
        if head >> 4:
            field += head >> 4
        else:
            field, at = _zigzag(data, at)
        found[field], at = _value(data, at, head & 0x0F, depth)
    return found, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if depth > 8:
        raise ValueError("structs within structs")
    match kind:
        case 1 | 2:
            return kind == 1, at
        case 3:
            return data[at], at + 1
        case 4 | 5 | 6:
            return _zigzag(data, at)
        case 7:
            return None, at + 8
        case 8:
            size, at = _varint(data, at)
            return data[at : at + size], at + size
        case 9 | 10:
            head, at = data[at], at + 1
            size, at = _varint(data, at) if head >> 4 == 15 else (head >> 4, at)
            for _ in range(size):
                _, at = _value(data, at, head & 0x0F, depth + 1)
            return None, at
        case 12:
            return _struct(data, at, depth + 1)
    raise ValueError(f"a value of kind {kind}")

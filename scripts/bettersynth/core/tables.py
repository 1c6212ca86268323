"""Tables: Parquet files, each held against its own sha256 when it is read.

The checksums of Parquet cover the data of pages, not their headers nor the footer, where one bit makes other rows of
the same data. So a table carries the sha256 of the whole file, too: in the footer, under `KEY`, taken while zeros stood
in its place.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bettersynth.core.publish import publish
from bettersynth.core.remedy import DamagedError

BATCH_ROWS = 16_384
"""Rows of a table that are read, or picked out, at one time."""
GROUP_ROWS = 65_536
"""Rows that a table is written by: of long lists Arrow takes several times their size, for one group at a time."""
KEY = b"bettersynth.sha256"
_BLANK = b"0" * 64
_STAMP = re.compile(re.escape(KEY) + rb"[^0-9a-f]{1,4}([0-9a-f]{64})", re.DOTALL)
_FOOTER_BYTES = 1 << 24
"""Within so many bytes of a file's end its footer is looked for."""


def write_table(path: str | Path, table: pa.Table) -> None:
    """Publish a table as Parquet; the same table gives the same bytes everywhere."""
    with publish(path) as temporary:
        with pq.ParquetWriter(temporary, table.schema, compression="zstd", write_page_checksum=True) as writer:
            writer.write_table(table, row_group_size=GROUP_ROWS)
            writer.add_key_value_metadata({KEY: _BLANK})
        with temporary.open("r+b") as file:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents:
                place, found = _stamped(contents)
            assert found == _BLANK
            file.seek(place)
            file.write(_sha256_around(temporary, place))


def read_table(path: str | Path, columns: list[str] | None = None) -> pa.Table:
    """The Parquet table in the file `path`; of `columns`, those that it has.

    Read in batches: of lists in one large row group Arrow would hold several times what they take up in the end.
    Raises DamagedError, which says how to make it again, unless every byte is as it was written. (A table of an earlier
    version, or of another program, has no sha256 to be held against.)
    """
    path = Path(path)
    with _contents(path) as contents:
        try:
            file = pq.ParquetFile(pa.BufferReader(contents), page_checksum_verification=True)
            batches = list(file.iter_batches(BATCH_ROWS, columns=columns))
            table = pa.Table.from_batches(batches) if batches else file.read(columns=columns)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DamagedError(path, f"it cannot be read ({error})") from error
    metadata = {key: value for key, value in (table.schema.metadata or {}).items() if key != KEY}
    return table.replace_schema_metadata(metadata or None)


@contextmanager
def _contents(path: Path) -> Iterator[pa.Buffer]:
    """The file's bytes, which are those that were written."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise DamagedError(path, "it is empty")
        contents = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    place, stamp = _stamped(contents)
    if stamp is not None and stamp != _sha256_around(path, place):
        raise DamagedError(path, "its bytes are not those that were written")
    yield pa.py_buffer(contents)  # which lives as long as what refers to it


def _stamped(contents: mmap.mmap) -> tuple[int, bytes | None]:
    """Where in a table's file its sha256 stands, and what stands there."""
    start = max(len(contents) - _FOOTER_BYTES, 0)
    place = contents.rfind(KEY, start)
    found = _STAMP.match(contents, place) if place >= 0 else None
    return (found.start(1), found[1]) if found else (0, None)


def _sha256_around(path: Path, place: int) -> bytes:
    """The sha256, in hex, of a file in which zeros stand at `place`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        left = place
        while left and (part := file.read(min(left, 1 << 20))):
            digest.update(part)
            left -= len(part)
        digest.update(_BLANK)
        file.seek(place + len(_BLANK))
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest().encode()

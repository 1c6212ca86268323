"""The record: one image-text pair in Data-Juicer's form, and tables of records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from bettersynth.core.publish import publish

IMAGE_TOKEN = "<__dj__image>"  # data_juicer.utils.mm_utils.SpecialTokens.image
END_OF_CHUNK = "<|__dj__eoc|>"  # data_juicer.utils.mm_utils.SpecialTokens.eoc
POOL = "pool"

SCHEMA = pa.schema(
    [("id", pa.string()), ("text", pa.string()), ("images", pa.list_(pa.string())), ("image_root", pa.string())]
)
ROWS = pa.schema([("id", pa.string()), ("source", pa.string())])
"""A dataset: rows in order. Within one dataset an id has one source, however often it is repeated."""

BATCH_ROWS = 16_384
"""Rows of a table that are read, or picked out, at one time."""


GROUP_ROWS = 65_536
"""Rows that a table is written by: of long lists Arrow takes several times their size, for one group at a time."""


class Record(NamedTuple):
    """One image-text pair; `images` are paths relative to the folder that `image_root` names."""

    id: str
    text: str
    images: list[str]
    image_root: str = POOL


def caption_of(text: str) -> str:
    """The caption inside Data-Juicer's text: without image and end-of-chunk tokens, stripped."""
    return text.replace(IMAGE_TOKEN, "").replace(END_OF_CHUNK, "").strip()


def text_of(caption: str) -> str:
    """Data-Juicer's text of a one-image record, as its LLaVA converter writes it."""
    return f"{IMAGE_TOKEN}\n{caption} {END_OF_CHUNK}"


def variant_id(record_id: str, number: int) -> str:
    """The id of one of several records that are made of one."""
    return f"{record_id}~{number}"


def original_id(variant: str) -> str:
    """The id that `variant_id` was given."""
    return variant.rpartition("~")[0]


def write_table(path: str | Path, table: pa.Table) -> None:
    """Publish a table as Parquet; the same table gives the same bytes everywhere."""
    with publish(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=GROUP_ROWS)


def read_table(path: str | Path, columns: list[str] | None = None) -> pa.Table:
    """The Parquet table in the file `path`.

    Read in batches: of lists in one large row group Arrow would hold several times what they take up in the end.
    """
    file = pq.ParquetFile(path)
    batches = list(file.iter_batches(BATCH_ROWS, columns=columns))
    return pa.Table.from_batches(batches) if batches else file.read(columns=columns)


def write_records(path: str | Path, records: Iterable[Record]) -> pa.Table:
    """Publish records as one shard and return the table."""
    rows = list(records)
    columns = [[row[number] for row in rows] for number in range(len(SCHEMA))]
    table = pa.table([pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)
    write_table(path, table)
    return table


def read_records(path: str | Path) -> Iterator[Record]:
    """The records of one shard, in order."""
    for row in read_table(path).to_pylist():
        yield Record(**row)


FAILED = pa.schema([("id", pa.string()), ("source", pa.string()), ("reason", pa.string())])
"""`sources/{source}/records/{shard}.failed.parquet`: rows that were asked for and not made, with their old source."""

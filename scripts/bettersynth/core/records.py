"""The record: one image-text pair in Data-Juicer's form, and tables of records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from bettersynth.core.tables import read_table, write_table

IMAGE_TOKEN = "<__dj__image>"  # data_juicer.utils.mm_utils.SpecialTokens.image
END_OF_CHUNK = "<|__dj__eoc|>"  # data_juicer.utils.mm_utils.SpecialTokens.eoc
POOL = "pool"

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("images", pa.list_(pa.string())),
        ("image_root", pa.string()),
        ("image_sha256", pa.list_(pa.string())),
    ]
)
ROWS = pa.schema([("id", pa.string()), ("source", pa.string())])
"""A dataset: rows in order. Within one dataset an id has one source, however often it is repeated."""


class Record(NamedTuple):
    """One image-text pair; `images` are paths relative to the folder that `image_root` names.

    `image_sha256` are the digests of the pool's images as they were read in: a record with another picture is another
    record. Drawn images have none, since their names are their digests.
    """

    id: str
    text: str
    images: list[str]
    image_root: str = POOL
    image_sha256: list[str] | None = None


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


def origins(record_id: str) -> Iterator[str]:
    """The id, and what it is a variant of, if it is: variants are made of variants too."""
    while record_id:
        yield record_id
        record_id = original_id(record_id)


def write_records(path: str | Path, records: Iterable[Record]) -> pa.Table:
    """Publish records as one shard and return the table."""
    rows = list(records)
    columns = [[row[number] for row in rows] for number in range(len(SCHEMA))]
    table = pa.table([pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)
    write_table(path, table)
    return table


def record_table(path: str | Path) -> pa.Table:
    """The records of one shard, in the columns of `SCHEMA`; those of an earlier version have no digests of images."""
    table = read_table(path)
    absent = (field for field in SCHEMA if field.name not in table.column_names)
    for field in absent:
        table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(SCHEMA.names)


def read_records(path: str | Path) -> Iterator[Record]:
    """The records of one shard, in order."""
    for row in read_table(path).to_pylist():
        yield Record(**row)


FAILED = pa.schema([("id", pa.string()), ("source", pa.string()), ("reason", pa.string())])
"""`sources/{source}/records/{shard}.failed.parquet`: rows that were asked for and not made, with their old source."""

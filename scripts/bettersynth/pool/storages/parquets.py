"""Parquet: records as rows, pictures as values of a column (or paths in one)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from bettersynth.configuration.pool import PoolFile
from bettersynth.configuration.storage import ArchiveError, Container, Contents, Member, MemberError, Storage
from bettersynth.core.raw import RawLine
from bettersynth.core.records import IMAGE_TOKEN, text_of
from bettersynth.pool.storages._pages import Value, slots, unpack
from bettersynth.workflow.archives import archive

BATCH = 1000
"""Rows that are Python objects at one time."""
CAPTIONS = ("caption", "text", "conversations")
IMAGES = ("image", "images", "jpg", "png", "webp")
IDS = ("id", "key")
"""Columns that are looked for where none is named, in this order."""
BYTES = "bytes"
"""The part of an image, as `datasets` writes it, that is its file's bytes."""


class Columns(NamedTuple):
    """Which columns a record is made of."""

    caption: str
    image: str
    id: str | None
    holds: bool
    """Whether the column has pictures, not paths."""
    several: bool
    """Whether a row has a list of them."""


class Parquets(Storage):
    """Parquet, as `datasets` and img2dataset write it."""

    endings = (".parquet",)
    form = "Parquet"
    keys = frozenset({"caption", "image", "id"})
    holds_pictures = True
    place = Value._fields

    def problem(self, path: Path) -> str | None:
        with path.open("rb") as file:
            return None if file.read(4) == b"PAR1" else f"{path}: no Parquet file"

    def lines(self, file: PoolFile, containers: Iterable[Container]) -> Iterator[RawLine]:
        number = 0
        for container in containers:
            with _opened(container.path) as parquet:
                columns = _columns(file, container.path, parquet.schema_arrow)
                for row, record in enumerate(_rows(parquet, columns)):
                    number += 1
                    yield RawLine(number, orjson.dumps(_line(row, record, columns, container)))

    def contents(self, path: Path) -> Contents:
        with _opened(path) as parquet:
            schema, keys = parquet.schema_arrow, {}
            texts = [field.name for field in schema if _holds_text(field.type)]
            pictures = [field.name for field in schema if _holds_pictures(_element(field.type)[0])]
            if not set(CAPTIONS) & set(schema.names) and texts:
                usual = [name for name in texts if name.lower() in (*CAPTIONS, "alt_text", "title")]
                keys["caption"] = (usual or texts)[0]
            if not set(IMAGES) & set(schema.names) and pictures:
                keys["image"] = pictures[0]
            return Contents(parquet.metadata.num_rows, tuple(schema.names), keys)

    def members(self, file: BinaryIO, path: Path) -> Iterator[Member]:
        """Every picture, as `column/row`, or `column/row/number` where a row has a list of them."""
        with _opened(path) as parquet:
            for number in range(parquet.metadata.num_columns):
                leaf = parquet.schema.column(number)
                column = leaf.path.partition(".")[0]
                if _is_of_pictures(leaf):
                    several = leaf.max_repetition_level > 0
                    for slot in slots(file, path, parquet, number):
                        if slot.value is not None:
                            name = f"{column}/{slot.row}" + (f"/{slot.number}" if several else "")
                            yield Member(name, "", tuple(slot.value))

    def read(self, file: BinaryIO, path: Path, member: Member) -> bytes:
        value = Value(*member.place)
        if value.page < 0:
            data = os.pread(file.fileno(), value.size, value.offset)
        else:
            page = os.pread(file.fileno(), value.stored, value.page)
            try:
                data = unpack(page, value.unpacked, value.codec)[value.offset : value.offset + value.size]
            except ValueError as error:
                raise MemberError(f"{path}: its value {member.name} is damaged ({error})") from error
        if len(data) != value.size:
            raise MemberError(f"{path}: its value {member.name} is cut short")
        return data


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ArchiveError(f"{path}: no whole Parquet file ({error}); write or copy it again") from error


def _is_of_pictures(leaf: Any) -> bool:
    """Whether a leaf column holds bytes: of its own, or as the part `bytes` of an image."""
    is_bytes = leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type == "NONE"
    return is_bytes and leaf.max_repetition_level < 2


def _columns(file: PoolFile, path: Path, schema: pa.Schema) -> Columns:
    """The columns of a record. Raises ArchiveError where one is missing."""
    caption, image = _named("caption", file, CAPTIONS, path, schema), _named("image", file, IMAGES, path, schema)
    name = file.id or next((column for column in IDS if column in schema.names), "hash")
    if name != "hash" and name not in schema.names:
        raise _missing("id", name, path, schema)
    kind, several = _element(schema.field(image).type)
    holds = _holds_pictures(kind)
    if not holds and not _holds_text(kind):
        raise ArchiveError(
            f"{path}: its column {image} holds {kind}, neither pictures nor paths; name another by `image`"
        )
    return Columns(caption, image, None if name == "hash" else name, holds, several)


def _element(kind: pa.DataType) -> tuple[pa.DataType, bool]:
    """What a column's rows hold, and whether they hold lists of it."""
    several = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return (kind.value_type if several else kind), several


def _holds_pictures(kind: pa.DataType) -> bool:
    is_image = pa.types.is_struct(kind) and kind.get_field_index(BYTES) >= 0
    return is_image or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _holds_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _named(key: str, file: PoolFile, usual: Sequence[str], path: Path, schema: pa.Schema) -> str:
    wanted = file.fields.get(key)
    found = next((column for column in ([wanted] if wanted else usual) if column in schema.names), None)
    if found is None:
        raise _missing(key, wanted or " or ".join(usual), path, schema)
    return found


def _missing(key: str, wanted: str, path: Path, schema: pa.Schema) -> ArchiveError:
    return ArchiveError(
        f"{path}: has no column {wanted}; say by `{key}` in `pool.files` which it is of: {', '.join(schema.names)}"
    )


def _rows(parquet: pq.ParquetFile, columns: Columns) -> Iterator[dict[str, Any]]:
    """Every row without its pictures."""
    names = [
        columns.caption,
        *([] if columns.id is None else [columns.id]),
        *([] if columns.holds else [columns.image]),
    ]
    for batch in parquet.iter_batches(BATCH, columns=list(dict.fromkeys(names))):
        yield from batch.to_pylist()


def _line(row: int, record: dict[str, Any], columns: Columns, container: Container) -> dict[str, Any]:
    caption = record[columns.caption]
    images = _images(row, record, columns, container)
    line = {"id": None if columns.id is None else record[columns.id], "sample": f"{container.path}: row {row}"}
    if isinstance(caption, list):
        return line | {"conversations": caption, "image": images}
    return line | {"text": _text(caption, len(images or ())), "images": images}


def _images(row: int, record: dict[str, Any], columns: Columns, container: Container) -> Any:
    if not columns.holds:
        value = record[columns.image]
        return value if columns.several or value is None else [value]
    name = f"{columns.image}/{row}"
    if not columns.several:
        return [f"{container.name}/{name}"]
    number, names, opened = 0, [], archive(container.path)
    while opened.find(f"{name}/{number}"):
        names.append(f"{container.name}/{name}/{number}")
        number += 1
    return names


def _text(caption: Any, pictures: int) -> Any:
    """Data-Juicer's text, unless it is that already."""
    if not isinstance(caption, str) or IMAGE_TOKEN in caption:
        return caption
    return f"{IMAGE_TOKEN} " * (pictures - 1) + text_of(caption.strip())


PARQUETS = Parquets()

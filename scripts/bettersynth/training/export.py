"""Write a dataset out in the forms that other tools read. Same dataset, same bytes (the card excepted)."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import Card, publish_folder, sha256_file
from bettersynth.core.records import caption_of
from bettersynth.core.tables import write_table
from bettersynth.pool.images import ImageRoots
from bettersynth.pool.llava import Questions, iterate, llava_entries, write_list
from bettersynth.pool.rows import load_records, read_rows
from bettersynth.workflow.archives import read_bytes, split
from bettersynth.workflow.plan import Plan

SAMPLES_PER_TAR = 10_000
GROUP_BYTES = 1 << 26
"""Bytes of pictures in a row group."""
FILE_BYTES = 1 << 29
"""Bytes of pictures in a Parquet file, after which another begins."""
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""A picture as `datasets` keeps it."""


class Exported(NamedTuple):
    """What is written out, and where."""

    dataset: str
    records: pa.Table
    roots: ImageRoots
    configuration: Configuration
    layout: Layout
    folder: Path
    """Where it is written."""
    place: Path
    """Where it will lie."""

    def path(self, record: dict[str, Any], image: str) -> Path:
        """The file of an image. Raises ImageProblem."""
        return self.roots.path(record["image_root"], image)


def export_dataset(dataset: str, form: str, configuration: Configuration, layout: Layout, plan: Plan) -> dict[str, Any]:
    """Publish the folder `exports/{dataset}/{form}` and return its card; `form` is one of EXPORT_FORMATS."""
    card = Card(dataset=dataset, format=form, inputs={dataset: sha256_file(layout.rows(dataset))})
    records = load_records(read_rows(dataset, layout), layout, plan)
    roots, place = ImageRoots(configuration.pool, layout).load(), layout.export(dataset, form)
    with publish_folder(place) as folder:
        WRITERS[form](Exported(dataset, records, roots, configuration, layout, folder, place))
        files = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
        return card.write(folder / "card.json", rows=records.num_rows, files=files, images=roots.roots.key)


def write_data_juicer(exported: Exported) -> None:
    """JSON lines that Data-Juicer opens as they lie: paths are relative to the export's folder.

    Where any picture lies in an archive, which Data-Juicer opens none of, Parquet instead, with the pictures' bytes in
    the column `image_bytes` that its operators look into.
    """
    if any(map(_lies_inside, _paths(exported))):
        schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("images", pa.list_(pa.string()))])
        schema = schema.append(pa.field("image_bytes", pa.list_(pa.binary())))
        _write_parquet(exported, schema, lambda record, images: {**_named(record), "image_bytes": images})
        return
    place = exported.place.resolve()
    with (exported.folder / f"{exported.dataset}.jsonl").open("wb") as output:
        for record in iterate(exported.records):
            paths = [exported.roots.resolved(record["image_root"], image) for image in record["images"]]
            relative = [os.path.relpath(path, place).replace(os.sep, "/") for path in paths]
            output.write(orjson.dumps({"id": record["id"], "text": record["text"], "images": relative}) + b"\n")


def write_llava(exported: Exported) -> None:
    """A JSON list with questions; image paths are relative to the pool's (first) image folder."""
    configuration, ids = exported.configuration, exported.records["id"].to_pylist()
    questions = Questions(configuration, configuration.trainset.question, ids, exported.layout)
    with (exported.folder / f"{exported.dataset}.json").open("wb") as output:
        write_list(output, llava_entries(exported.records, questions, exported.roots))


def write_parquet(exported: Exported) -> None:
    """One table without the pictures; image paths are relative to the pool's (first) image folder."""
    paths = (_pool_paths(record, exported.roots) for record in iterate(exported.records))
    columns = {name: exported.records[name] for name in ("id", "source", "text")}
    table = pa.table({**columns, "images": pa.array(paths, pa.list_(pa.string()))}).combine_chunks()
    write_table(exported.folder / f"{exported.dataset}.parquet", table)


def write_huggingface(exported: Exported) -> None:
    """Parquet with the pictures in it, as `datasets` reads it: `id, source, caption, image`, or `images`, a list."""
    several = any(len(record["images"]) != 1 for record in iterate(exported.records))
    features: dict[str, Any] = {name: {"dtype": "string", "_type": "Value"} for name in ("id", "source", "caption")}
    image = {"_type": "Image"}
    features |= {"images": {"feature": image, "_type": "List"}} if several else {"image": image}
    fields = [pa.field(name, pa.string()) for name in ("id", "source", "caption")]
    fields.append(pa.field("images", pa.list_(IMAGE)) if several else pa.field("image", IMAGE))
    told = {"huggingface": json.dumps({"info": {"features": features}}, sort_keys=True)}

    def row(record: dict[str, Any], images: list[bytes]) -> dict[str, Any]:
        pictures = [
            {"bytes": data, "path": _plain_name(path)} for data, path in zip(images, record["images"], strict=True)
        ]
        about = {"id": record["id"], "source": record["source"], "caption": caption_of(record["text"])}
        return about | ({"images": pictures} if several else {"image": pictures[0]})

    _write_parquet(exported, pa.schema(fields, told), row)


def write_webdataset(exported: Exported) -> None:
    """Tar files with the images' own bytes, caption and record; a row that is repeated is there as often.

    Keys are row numbers. All pictures have one extension, the commonest: `datasets` takes those of a second one for
    missing.
    """
    extension = _common_extension(exported)
    rows: Iterator[tuple[int, dict[str, Any]]] = enumerate(iterate(exported.records))
    for number in range(max(1, -(-exported.records.num_rows // SAMPLES_PER_TAR))):
        name = f"{exported.dataset}-{number:06d}.tar"
        with tarfile.open(exported.folder / name, "w", format=tarfile.USTAR_FORMAT) as tar:
            for place, record in islice(rows, SAMPLES_PER_TAR):
                for part, content in _sample_files(record, exported, extension):
                    _add(tar, f"{place:09d}.{part}", content)


WRITERS: dict[str, Callable[[Exported], None]] = {
    "data_juicer": write_data_juicer,
    "llava": write_llava,
    "parquet": write_parquet,
    "huggingface": write_huggingface,
    "webdataset": write_webdataset,
}


def _paths(exported: Exported) -> Iterator[Path]:
    for record in iterate(exported.records):
        for image in record["images"]:
            yield exported.roots.plain(record["image_root"], image)


def _lies_inside(path: Path) -> bool:
    return not path.exists() and split(path) is not None


def _pool_paths(record: dict[str, Any], roots: ImageRoots) -> list[str]:
    return [roots.from_pool(record["image_root"], path) for path in record["images"]]


def _named(record: dict[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in ("id", "text", "images")}


def _plain_name(path: str) -> str:
    return path.rpartition("/")[2]


def _write_parquet(
    exported: Exported, schema: pa.Schema, row: Callable[[dict[str, Any], list[bytes]], dict[str, Any]]
) -> None:
    """Files of some hundred megabytes, of which one row group is in memory at a time."""
    groups = _groups(exported, row)
    group, number = next(groups, None), 0
    while group is not None or not number:
        path, written = exported.folder / f"{exported.dataset}-{number:05d}.parquet", 0
        with pq.ParquetWriter(
            path, schema, compression="none", use_dictionary=False, write_page_checksum=True
        ) as writer:
            while group is not None and written < FILE_BYTES:
                writer.write_table(pa.Table.from_pylist(group[0], schema))
                written += group[1]
                group = next(groups, None)
        number += 1


def _groups(
    exported: Exported, row: Callable[[dict[str, Any], list[bytes]], dict[str, Any]]
) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Rows with their pictures, in groups, and how many bytes the pictures of each have."""
    rows: list[dict[str, Any]] = []
    held = 0
    for record in iterate(exported.records):
        images = [read_bytes(exported.path(record, image)) for image in record["images"]]
        rows.append(row(record, images))
        held += sum(map(len, images))
        if held >= GROUP_BYTES:
            yield rows, held
            rows, held = [], 0
    if rows:
        yield rows, held


def _common_extension(exported: Exported) -> str:
    """What all pictures are called."""
    found = Counter(path.suffix.lower().removeprefix(".") for path in _paths(exported))
    known = {name: number for name, number in found.items() if name}
    return min(known, key=lambda name: (-known[name], name)) if known else "jpg"


def _sample_files(record: dict[str, Any], exported: Exported, extension: str) -> Iterator[tuple[str, bytes]]:
    """Extension and content of one sample's files; several images are `0.jpg`, `1.jpg` and on."""
    for number, relative in enumerate(record["images"]):
        name = extension if len(record["images"]) == 1 else f"{number}.{extension}"
        yield name, read_bytes(exported.path(record, relative))
    about = {"id": record["id"], "source": record["source"], "text": record["text"], "images": record["images"]}
    yield "json", orjson.dumps(about)
    yield "txt", caption_of(record["text"]).encode()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file whose header holds nothing of this machine: owner 0, time 0, mode 0644."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))

"""Write a dataset out in the forms that other tools read. Same dataset, same bytes (the card excepted)."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import Card, publish_folder, sha256_file
from bettersynth.core.records import caption_of
from bettersynth.core.tables import write_table
from bettersynth.pool.images import ImageRoots
from bettersynth.pool.llava import Questions, iterate, llava_entries, write_list
from bettersynth.pool.rows import load_records, read_rows
from bettersynth.workflow.plan import Plan

SAMPLES_PER_TAR = 10_000


def export_dataset(dataset: str, form: str, configuration: Configuration, layout: Layout, plan: Plan) -> dict[str, Any]:
    """Publish the folder `exports/{dataset}/{form}` and return its card; `form` is one of EXPORT_FORMATS.

    `data_juicer`: JSON lines; `llava`: a JSON list with questions; `parquet`: one table; these three hold image paths
    relative to the pool's image folder. `webdataset`: tar files with the images' own bytes, caption and record; its
    keys are row numbers, so a row that is repeated is there as often.
    """
    card = Card(dataset=dataset, format=form, inputs={dataset: sha256_file(layout.rows(dataset))})
    records = load_records(read_rows(dataset, layout), layout, plan)
    roots = ImageRoots(configuration.pool, layout)
    with publish_folder(layout.export(dataset, form)) as folder:
        match form:
            case "data_juicer":
                _write_data_juicer(folder / f"{dataset}.jsonl", records, roots)
            case "llava":
                _write_llava(folder / f"{dataset}.json", records, roots, configuration, layout)
            case "parquet":
                write_table(folder / f"{dataset}.parquet", _with_pool_paths(records, roots))
            case "webdataset":
                _write_webdataset(folder, dataset, records, roots)
        files = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
        return card.write(folder / "card.json", rows=records.num_rows, files=files, images=configuration.pool.images)


def _pool_paths(record: dict[str, Any], roots: ImageRoots) -> list[str]:
    return [roots.from_pool(record["image_root"], path) for path in record["images"]]


def _write_data_juicer(path: Path, records: pa.Table, roots: ImageRoots) -> None:
    with path.open("wb") as output:
        for record in iterate(records):
            line = {"id": record["id"], "text": record["text"], "images": _pool_paths(record, roots)}
            output.write(orjson.dumps(line) + b"\n")


def _write_llava(
    path: Path, records: pa.Table, roots: ImageRoots, configuration: Configuration, layout: Layout
) -> None:
    questions = Questions(configuration, configuration.trainset.question, records["id"].to_pylist(), layout)
    with path.open("wb") as output:
        write_list(output, llava_entries(records, questions, roots))


def _with_pool_paths(records: pa.Table, roots: ImageRoots) -> pa.Table:
    images = pa.array((_pool_paths(record, roots) for record in iterate(records)), pa.list_(pa.string()))
    columns = {"id": records["id"], "source": records["source"], "text": records["text"], "images": images}
    return pa.table(columns).combine_chunks()


def _write_webdataset(folder: Path, dataset: str, records: pa.Table, roots: ImageRoots) -> None:
    rows: Iterator[tuple[int, dict[str, Any]]] = enumerate(iterate(records))
    for number in range(max(1, -(-records.num_rows // SAMPLES_PER_TAR))):
        with tarfile.open(folder / f"{dataset}-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for place, record in islice(rows, SAMPLES_PER_TAR):
                for name, content in _sample_files(record, roots):
                    _add(tar, f"{place:09d}.{name}", content)


def _sample_files(record: dict[str, Any], roots: ImageRoots) -> Iterator[tuple[str, bytes]]:
    """Extension and content of one sample's files; several images are `0.jpg`, `1.jpg` and on."""
    for number, relative in enumerate(record["images"]):
        path = roots.path(record["image_root"], relative)
        extension = path.suffix.lower().removeprefix(".") or "image"
        yield (extension if len(record["images"]) == 1 else f"{number}.{extension}"), path.read_bytes()
    about = {"id": record["id"], "source": record["source"], "text": record["text"], "images": record["images"]}
    yield "json", orjson.dumps(about)
    yield "txt", caption_of(record["text"]).encode()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file whose header holds nothing of this machine: owner 0, time 0, mode 0644."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))

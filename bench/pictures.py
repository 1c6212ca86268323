"""Time to hold a pool's pictures against those that were read in, whenever the graph is built."""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--pictures", type=int, default=410_000, help="small files (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where a folder for them is made (default: the system's)")


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Look at unchanged pictures; with one touched and one changed; again; and with every one touched.

    The files are small, so what is read again tells of files a second, not of bytes. The first look comes after the
    files were written: the file system has their names in memory, as after any earlier look.
    """
    from bettersynth.configuration.pool import Pool
    from bettersynth.core.layout import Layout
    from bettersynth.core.publish import write_json
    from bettersynth.core.tables import write_table
    from bettersynth.workflow.pictures import IMAGES, look

    figures: dict[str, float] = {"pictures": options.pictures}
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        layout, images = Layout(Path(place, "results")), Path(place, "images")
        pool = Pool.model_validate(
            {"files": [{"name": "raw", "path": "raw.jsonl", "shards": 100}], "images": str(images)}
        )
        columns = list(zip(*_drawn(images, options.pictures), strict=True))
        table = pa.table([pa.array(column, field.type) for column, field in zip(columns, IMAGES, strict=True)], IMAGES)
        write_table(layout.images("raw"), table)
        shards: dict[str, Any] = {f"raw-{number:04d}": {} for number in range(100)}
        write_json(layout.file_ledger("raw"), {"parameters": {"images": str(images)}, "shards": shards})

        def timed(name: str) -> None:
            started, spent = time.perf_counter(), time.process_time()
            found = look("raw", pool, layout)
            figures[f"{name}_seconds"] = round(time.perf_counter() - started, 2)
            figures[f"{name}_cpu_seconds"] = round(time.process_time() - spent, 2)
            figures[f"{name}_shards"] = len(found.shards)

        timed("unchanged")
        os.utime(images / _name(0))
        (images / _name(1)).write_bytes(b"another picture")
        timed("one_touched_one_changed")
        timed("the_same_again")
        for number in range(options.pictures):
            os.utime(images / _name(number))
        timed("all_touched")
        timed("all_touched_again")
    return figures


def _name(number: int) -> str:
    return f"{number // 1000:05d}/{number:07d}.jpg"


def _drawn(folder: Path, pictures: int) -> Iterator[tuple[object, ...]]:
    """Write the files; rows of a table of images."""
    from bettersynth.workflow.pictures import State

    for number in range(pictures):
        path = folder / _name(number)
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        contents = f"picture {number} ".encode() * 20
        path.write_bytes(contents)
        state = State.of(path.stat(), hashlib.sha256(contents).hexdigest())
        yield (_name(number), f"raw-{number % 100:04d}", *state)

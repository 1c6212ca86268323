"""LLaVA's form of a record, as the kit's `dj_to_llava.py --restore_questions True` writes it."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import IO, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from bettersynth.configuration.pool import Pool
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.raw import DERIVED_ID, PLAIN_IMAGE_TOKEN, RecordProblem, parse_json, raw_lines
from bettersynth.core.records import caption_of, origins
from bettersynth.core.tables import read_table
from bettersynth.pool.images import ImageRoots

BATCH = 8192
"""Records that are Python objects at one time."""


class Questions:
    """The question of each record: its own in a file of LLaVA's form, or restored, or one for all.

    `pool.restore` names the files that questions are restored from; where it names none, `question` is asked.
    """

    def __init__(
        self, configuration: Configuration, question: str, ids: Iterable[str], layout: Layout | None = None
    ) -> None:
        wanted = {one for record_id in ids for one in origins(record_id)}
        self._files = configuration.pool.restore
        self._same = f"{question}\n{PLAIN_IMAGE_TOKEN}"
        self._own = {} if layout is None else _own_questions(configuration.pool, layout, wanted)
        self._restored = _restore(self._files, wanted - self._own.keys())

    def __getitem__(self, record_id: str) -> str:
        """The human turn, image token included; of a variant, that of what it was made of.

        Raises ValueError when the restore files do not have the id.
        """
        for known in (self._own, self._restored):
            for one in origins(record_id):
                if one in known:
                    return known[one]
        if not self._files or record_id.startswith(DERIVED_ID):
            return self._same  # an id that the raw file did not give is in no restore file either
        raise ValueError(
            f"record `{record_id}` has no question in {', '.join(self._files)}; "
            "add the file that holds it to `pool.restore`, or empty that list to ask one question everywhere"
        )


def _own_questions(pool: Pool, layout: Layout, ids: set[str]) -> dict[str, str]:
    """The questions that records of these ids came with, as ingest noted them; of equal ids the first file's counts."""
    found: dict[str, str | None] = {}
    for file in pool.files:
        path = layout.order(file.name)
        if "question" not in pq.read_schema(path).names:
            raise ValueError(f"{path}: is of an earlier version; take the file in again: --forcerun ingest_{file.name}")
        for batch in read_table(path, ["id", "question"]).to_batches(BATCH):
            for record_id, question in zip(batch["id"].to_pylist(), batch["question"].to_pylist(), strict=True):
                if record_id in ids:
                    found.setdefault(record_id, question if question is None else sys.intern(question))
    return {record_id: question for record_id, question in found.items() if question is not None}


def restored_ids(files: Iterable[str]) -> set[str]:
    """The ids that restore files have a question for."""
    return set(_restore(files, None))


def _restore(files: Iterable[str], ids: set[str] | None) -> dict[str, str]:
    """The first turn of each wanted id, or of all; of equal ids the first stays. Few exist, so they share memory."""
    questions: dict[str, str] = {}
    for file in files:
        for line in raw_lines(file):
            with suppress(RecordProblem, LookupError, TypeError):  # such a line has no record that could ask for it
                entry = parse_json(line.raw)
                record_id = str(entry["id"])
                if ids is None or record_id in ids:
                    questions.setdefault(record_id, sys.intern(entry["conversations"][0]["value"]))
    return questions


def llava_entries(records: pa.Table, questions: Questions, roots: ImageRoots) -> Iterator[dict[str, Any]]:
    """One entry per record: `id`, `image` (relative to the pool's image folder), `conversations`.

    Raises ValueError for a record with several distinct images, which the form cannot hold.
    """
    for record in iterate(records):
        images = dict.fromkeys(record["images"])
        if len(images) != 1:
            raise ValueError(f"record `{record['id']}` has {len(images)} distinct images; LLaVA's form holds one")
        yield {
            "id": record["id"],
            "image": roots.from_pool(record["image_root"], next(iter(images))),
            "conversations": [
                {"from": "human", "value": questions[record["id"]]},
                {"from": "gpt", "value": caption_of(record["text"])},
            ],
        }


def iterate(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows as dictionaries, few at a time."""
    for batch in table.to_batches(BATCH):
        yield from batch.to_pylist()


def write_list(output: IO[bytes], entries: Iterable[dict[str, Any]]) -> int:
    """Write entries as one JSON list, an entry a line; returns their number."""
    count = 0
    output.write(b"[")
    for count, entry in enumerate(entries, 1):
        output.write(b"\n" if count == 1 else b",\n")
        output.write(orjson.dumps(entry))
    output.write(b"\n]\n")
    return count


def kit_cap(rows: int, cap: int | None, seed: int) -> list[int] | None:
    """Places of the rows that the kit's cap keeps, in its order; None when there are not more than `cap`.

    The kit's `check_sample_number.py`: `random.seed(seed); random.sample(rows, cap)`, which chooses by place only.
    """
    if cap is None or rows <= cap:
        return None
    return random.Random(seed).sample(range(rows), cap)

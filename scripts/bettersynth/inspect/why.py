"""Everything that happened to one record, from the files of a run: in seconds, for it reads only what names the record.

Parquet tables are read with a filter on the id, raw text by a search for its bytes; no file is loaded whole.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from bettersynth.core.errors import PersonError
from bettersynth.core.names import ShardName
from bettersynth.core.records import POOL, caption_of, variant_id
from bettersynth.datasets.ledger import reason_of
from bettersynth.workflow.expected import Expected
from bettersynth.workflow.roots import roots_of
from bettersynth.workflow.run import Run

MOST_POSITIONS = 5
"""Positions that are named; of a record that was repeated more often, the number of the others."""


class Story:
    """What the files of one run say of one record and of those that were made from it."""

    def __init__(self, run: Run) -> None:
        self.configuration, self.layout, self.plan = run.configuration, run.layout, run.plan
        self.config_file = run.config_file
        self.roots = roots_of(run.configuration.pool)
        self.expected = Expected(run.configuration, run.layout, run.plan)

    def of_record(self, record_id: str) -> str:
        """The story of an id. Raises PersonError when no file of the run names it."""
        sections = {
            "Raw files": [*self._raw(record_id), *self._quarantined(record_id)],
            "Scores": list(self._scores(record_id)),
            "Rewritten": list(self._rewritten(record_id)),
            "Datasets": list(self._datasets(record_id)),
            "Training files": list(self._training_files(record_id)),
        }
        if not any(sections.values()):
            raise PersonError(
                f"no file in {self.layout.root} names the record `{record_id}`; ids are those of the raw files, "
                f"and what is not read yet is read by: make run CONFIG={self.config_file}"
            )
        told = (f"{title}\n" + "\n".join(f"  {line}" for line in lines) for title, lines in sections.items() if lines)
        return f"Record {record_id}\n\n" + "\n\n".join(told)

    def records_with(self, image: str) -> list[str]:
        """Ids of the pool's records that show an image, by its path in the records. Raises PersonError if none does."""
        found: dict[str, None] = {}
        for file in self.configuration.pool.files:
            for shard in self.plan.shards(POOL):
                path = self.layout.records(POOL, shard)
                if ShardName.parse(shard).prefix == file.name and path.exists():
                    found.update(dict.fromkeys(_ids_with(path, image)))
            for entry in _lines_with(self.layout.quarantine(file.name), image):
                if record_id := _id_of(entry["raw"]):
                    found[record_id] = None
        if not found:
            raise PersonError(
                f"no record that was read into {self.layout.root} shows `{image}`; give the path as the records do, "
                f"relative to {' or '.join(self.roots.places)}"
            )
        return list(found)

    # the pool
    def _raw(self, record_id: str) -> Iterator[str]:
        for file in self.configuration.pool.files:
            for row in _rows(self.layout.order(file.name), record_id):
                yield f"{file.path}, line {row['line']}: kept, in shard {row['shard']}"
                for record in _rows(self.layout.records(POOL, row["shard"]), record_id):
                    yield f"  caption: {caption_of(record['text'])}"
                    yield from (f"  image: {self.roots.at(image)}" for image in record["images"])

    def _quarantined(self, record_id: str) -> Iterator[str]:
        for file in self.configuration.pool.files:
            for entry in _lines_with(self.layout.quarantine(file.name), record_id):
                if _id_of(entry["raw"]) == record_id:
                    detail = f" ({entry['detail']})" if entry["detail"] else ""
                    yield f"{file.path}, line {entry['line']}: in quarantine, {entry['reason']}{detail}"

    def _scores(self, record_id: str) -> Iterator[str]:
        for source in (POOL, *self.plan.generators):
            for operator in self.configuration.operators:
                for row in self._with_variants(self.layout.scores(source, operator), record_id):
                    values = ", ".join(f"{stat} {_value(value)}" for stat, value in row.items() if stat != "id")
                    yield f"{operator} of {_named(row, record_id)}{source}: {values}"

    # what was made of it
    def _rewritten(self, record_id: str) -> Iterator[str]:
        for source, verb in self.plan.generators.items():
            for shard in self.plan.shards(source):
                for record in self._with_variants(self.layout.records(source, shard), record_id):
                    yield f"{source} ({verb.name}): {_named(record, record_id)}{caption_of(record['text'])}"
                    if record["image_root"] == source:
                        yield from (f"  image: {self.layout.source_images(source) / name}" for name in record["images"])
                for row in _rows(self.layout.failed(source, shard), record_id):
                    yield f"{source} ({verb.name}): not made, {row['reason']}"
                yield from self._candidates(source, shard, record_id)

    def _candidates(self, source: str, shard: str, record_id: str) -> Iterator[str]:
        """Captions that a captioner chose among, as long as its journal is there."""
        for entry in _lines_with(self.layout.work(source, shard), record_id):
            ids = {record[0] for record in entry["records"]}
            if ids & {record_id, *(variant_id(record_id, number) for number in range(1, 33))}:
                for candidates in entry.get("candidates", ()):
                    yield from (f"  candidate: {candidate}" for candidate in candidates)

    # where it ended up
    def _datasets(self, record_id: str) -> Iterator[str]:
        for dataset in self.configuration.datasets:
            if not self.layout.dataset_card(dataset).exists():
                continue
            made = (
                f"{dataset} (as last made, of an earlier definition)" * (self.expected.card(dataset) is None) or dataset
            )
            for (row_id, source), positions in _places(self.layout.rows(dataset), record_id).items():
                named = "" if row_id == record_id else f"{row_id}, "
                yield f"{made}: kept, {named}from {source}, {_positions('row', positions)}"
            for row in self._with_variants(self.layout.dropped(dataset), record_id):
                yield f"{made}: dropped, {_named(row, record_id)}{reason_of(row)}"

    def _training_files(self, record_id: str) -> Iterator[str]:
        for recipe, definition in self.configuration.recipes.items():
            path = self.layout.trainset(recipe)
            if not path.exists():
                continue
            for row_id, positions in _entries(path, record_id).items():
                named = "" if row_id == record_id else f"{row_id}, "
                yield f"{recipe}: {named}{_positions('entry', positions)} of {path}"
            dataset = definition.dataset
            if not _entries(path, record_id) and dataset != POOL and _places(self.layout.rows(dataset), record_id):
                held_out = self.layout.held_out.exists() and _entries(self.layout.held_out, record_id)
                yield f"{recipe}: in {dataset}, but {'held out' if held_out else 'cut by the cap'}"

    def _with_variants(self, path: Path, record_id: str) -> Iterator[dict[str, Any]]:
        """Rows of the id and of records made from it."""
        yield from _rows(path, record_id, variants=True)


def _rows(path: Path, record_id: str, *, variants: bool = False) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet table with an id; none when the table is not there."""
    if path.exists():
        yield from pq.read_table(path, filters=_is(record_id, variants=variants)).to_pylist()


def _is(record_id: str, *, variants: bool) -> pc.Expression:
    same = pc.field("id") == record_id
    return same | pc.starts_with(pc.field("id"), f"{record_id}~") if variants else same


def _places(path: Path, record_id: str) -> dict[tuple[str, str], list[int]]:
    """(id, source) → positions in a dataset's rows, counted from 1, of the id and of records made from it."""
    if not path.exists():
        return {}
    table = pq.read_table(path, columns=["id", "source"])
    ids = table["id"]
    mine = pc.or_(pc.equal(ids, record_id), pc.starts_with(ids, f"{record_id}~"))
    places: dict[tuple[str, str], list[int]] = {}
    for position in pc.indices_nonzero(mine).to_pylist():
        key = ids[position].as_py(), table["source"][position].as_py()
        places.setdefault(key, []).append(position + 1)
    return places


def _ids_with(path: Path, image: str) -> list[str]:
    """Ids of the records of a shard that show an image."""
    table = pq.read_table(path, columns=["id", "images"])
    images = table["images"].combine_chunks()
    rows = pc.list_parent_indices(images).filter(pc.equal(images.flatten(), image))
    return list(dict.fromkeys(table["id"].take(rows).to_pylist()))


def _lines_with(path: Path, text: str) -> Iterator[dict[str, Any]]:
    """The JSON lines of a file that hold a text."""
    if not path.exists():
        return
    needles = {
        json.dumps(json.dumps(text, ensure_ascii=plain)[1:-1], ensure_ascii=False)[1:-1] for plain in (False, True)
    }
    wanted = [needle.encode() for needle in needles | {text}]
    with path.open("rb") as file:
        for line in file:
            if any(needle in line for needle in wanted):
                yield json.loads(line)


def _id_of(raw: str) -> str | None:
    """The id in a raw line that may be cut short."""
    found = re.search(r'"id"\s*:\s*("(?:[^"\\]|\\.)*"|-?\d+)', raw)
    return None if found is None else str(json.loads(found[1]))


def _entries(path: Path, record_id: str) -> dict[str, list[int]]:
    """Id → positions in a training file, counted from 1, of the id and of records made from it; an entry is a line."""
    name = re.escape(json.dumps(record_id, ensure_ascii=False)[1:-1].encode())
    found: dict[str, list[int]] = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        line = at = 0
        for match in re.finditer(rb'"id": ?"(' + name + rb'(?:~\d+)?)"', content):
            line += content[at : match.start()].count(b"\n")
            at = match.start()
            found.setdefault(match[1].decode(), []).append(line)
    return found


def _named(row: dict[str, Any], record_id: str) -> str:
    return "" if row["id"] == record_id else f"{row['id']}, "


def _positions(what: str, positions: list[int]) -> str:
    shown = ", ".join(f"{position:,}" for position in positions[:MOST_POSITIONS])
    more = f" and {len(positions) - MOST_POSITIONS} more" if len(positions) > MOST_POSITIONS else ""
    plural = {"row": "rows", "entry": "entries"}[what] if len(positions) > 1 else what
    return f"{plural} {shown}{more}"


def _value(value: Any) -> str:
    """A score as a person reads it: `0.3127`, `0.31, 0.12`, a vector by its length."""
    if isinstance(value, list):
        return f"a vector of {len(value)} numbers" if len(value) > MOST_POSITIONS else ", ".join(map(_value, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)

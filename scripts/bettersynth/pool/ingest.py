"""From raw files to the pool: records in shards, refused lines in quarantine, a ledger that adds up.

The rules, in the order they are applied to a line: it is JSON of a known form (`raw.parse_record`); of lines with
one id the first stays, whether or not its image turns out to be good; every image lies below `pool.images`, or in the
file itself, and its header is sound. A shard holds its records sorted by id, so reordering the raw file changes none.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from bettersynth.configuration.pool import Pool, PoolFile
from bettersynth.configuration.storage import expand, storage_of
from bettersynth.core import versions
from bettersynth.core.commands import make
from bettersynth.core.digests import digests
from bettersynth.core.layout import Layout
from bettersynth.core.parallel import map_threads
from bettersynth.core.progress import progress
from bettersynth.core.publish import Card, publish, sha256_file
from bettersynth.core.raw import (
    DERIVED_ID,
    Reason,
    RecordProblem,
    question_of,
    question_problem,
)
from bettersynth.core.records import Record, caption_of, write_records
from bettersynth.core.sharding import shard_name
from bettersynth.core.tables import read_table, write_table
from bettersynth.pool.images import ImageProblem, Source, check_image, read_image
from bettersynth.pool.llava import restored_ids
from bettersynth.workflow.digests import shard_digests
from bettersynth.workflow.pictures import IMAGES, State, remembered
from bettersynth.workflow.plan import shard_names
from bettersynth.workflow.roots import containers, roots_of

SHOWN_BYTES = 2000
"""Length to which a refused line is cut in the quarantine file."""

ORDER = pa.schema([("id", pa.string()), ("shard", pa.string()), ("line", pa.int64()), ("question", pa.string())])
INDEX = pa.schema([("id", pa.string()), ("shard", pa.string())])


class Refused(NamedTuple):
    """A line in quarantine."""

    line: int
    reason: str
    detail: str
    raw: str


class Candidate(NamedTuple):
    """A line whose text is sound and whose images are still to be looked at."""

    line: int
    raw: bytes
    record: Record
    question: str | None
    """Its own, in LLaVA's form."""


class Look(NamedTuple):
    """What was seen of a record's images: the first problem, and the state of each that was looked at."""

    problem: ImageProblem | None
    states: list[State]


def ingest_file(pool: Pool, file: PoolFile, layout: Layout, *, trains: bool = False) -> dict[str, Any]:
    """Write every shard of a raw file, its order, its quarantine and, last, its ledger, which is returned.

    When the configuration `trains`, records that no training file can hold are refused here, before they are scored.
    Raises ValueError when the questions of most records are missing from the files that are to restore them.
    """
    card = Card(file=file.name, path=file.path)
    candidates, refused, lines, blank = _read(pool, file)
    if trains:
        candidates = list(_trainable(candidates, refused, pool, file))
    kept: list[Candidate] = []
    states: dict[tuple[str, str], State] = {}
    for candidate, look in zip(candidates, _look_at_images(candidates, pool), strict=True):
        record = candidate.record
        shard = shard_name(file.name, record.id, file.shards)
        states.update(((image, shard), state) for image, state in zip(record.images, look.states, strict=False))
        if look.problem is None:
            pictures = [str(state.sha256) for state in look.states]
            kept.append(candidate._replace(record=record._replace(image_sha256=pictures)))
        else:
            refused.append(_refuse(candidate.line, candidate.raw, look.problem))
    if lines != len(kept) + len(refused):
        raise AssertionError(f"{file.path}: {lines} lines are not {len(kept)} records and {len(refused)} refused")

    shards = _write_shards(file, kept, layout)
    for shard, contents in shard_digests(pool, file, layout.digests).shards.items():
        shards[shard]["digest"] = contents
    _write_quarantine(layout.quarantine(file.name), file, refused)
    rows = [
        (item.record.id, shard_name(file.name, item.record.id, file.shards), item.line, item.question) for item in kept
    ]
    write_table(layout.order(file.name), _table(rows, ORDER))
    write_table(layout.images(file.name), _table([(*key, *state) for key, state in sorted(states.items())], IMAGES))
    reasons = Counter(item.reason for item in refused)
    return card.write(
        layout.file_ledger(file.name),
        beside=[layout.order(file.name), layout.images(file.name), layout.quarantine(file.name)],
        inputs={str(path): sha256 for path, sha256 in digests(expand(file.path)).items()},
        lines=lines,
        blank=blank,
        rows=len(kept),
        quarantined=dict(sorted(reasons.items())),
        parameters={
            "images": roots_of(pool).key,
            "shards": file.shards,
            **pool.checks,
            "version": versions.INGEST,
            **({"trains": [sha256_file(path) for path in pool.restore]} if trains else {}),
        },
        pictures=remembered(file.name, pool, layout).stamp,
        shards=shards,
    )


class QuarantineError(ValueError):
    """More of a raw file is quarantined than the configuration allows; the message says why, and what to change."""


def check_quarantined(pool: Pool, ledger: dict[str, Any], quarantine: Path, config: str) -> None:
    """Raise QuarantineError when the ledger of a raw file has more than `pool.max_quarantined` in quarantine."""
    lines, reasons = ledger["lines"], Counter(ledger["quarantined"])
    refused = reasons.total()
    if refused <= pool.max_quarantined * lines:
        return
    first: dict[str, dict[str, Any]] = {}
    with quarantine.open(encoding="utf-8") as file:
        for entry in map(json.loads, file):
            first.setdefault(entry["reason"], entry)
    common = [
        f"  {count:,} × {reason}, first in line {first[reason]['line']}: {first[reason]['detail']}"
        for reason, count in reasons.most_common(3)
    ]
    places = ", ".join(roots_of(pool).places)
    needed = math.ceil(100 * refused / lines) / 100
    raise QuarantineError(
        f"{ledger['path']}: {refused:,} of {lines:,} lines ({refused / lines:.0%}) are quarantined, more than "
        f"`pool.max_quarantined` allows ({pool.max_quarantined:g}). The commonest reasons:\n" + "\n".join(common) + "\n"
        f"All are in {quarantine}. Mend the file, or `pool.images` ({places}); if so many are to go, write in "
        f"{config}:\n  pool: {{max_quarantined: {needed:g}}}\nand then: {make('run', config=config)}"
    )


def _read(pool: Pool, file: PoolFile) -> tuple[list[Candidate], list[Refused], int, int]:
    """Lines with sound text, refused lines, number of lines that are not blank, number of blank ones."""
    candidates: list[Candidate] = []
    refused: list[Refused] = []
    first_line: dict[str, int] = {}
    lines = blank = 0
    for line in storage_of(file.path).lines(file, containers(pool, file)):
        number, raw, _ = line
        if not raw.strip():
            blank += 1
            continue
        lines += 1
        try:
            record = line.record()
            if record.id in first_line:
                detail = f"`{record.id}` is in line {first_line[record.id]} already"
                raise RecordProblem(Reason.DUPLICATE_ID, detail)
            if (length := len(caption_of(record.text))) > pool.max_caption:
                detail = f"{length} characters; `pool.max_caption` is {pool.max_caption}"
                raise RecordProblem(Reason.LONG_CAPTION, detail)
        except RecordProblem as problem:
            refused.append(_refuse(number, raw, problem))
        else:
            first_line[record.id] = number
            candidates.append(Candidate(number, raw, record, question_of(raw)))
    return candidates, refused, lines, blank


def _trainable(candidates: list[Candidate], refused: list[Refused], pool: Pool, file: PoolFile) -> Iterator[Candidate]:
    """The candidates that a training file can hold; the others join the refused."""
    known = restored_ids(pool.restore)
    without = [
        item.record.id
        for item in candidates
        if known and item.question is None and not item.record.id.startswith(DERIVED_ID) and item.record.id not in known
    ]
    if 2 * len(without) > len(candidates):
        raise ValueError(
            f"{file.path}: {len(without)} of {len(candidates)} records have no question in {', '.join(pool.restore)}, "
            f"such as {_missed(without[0], known)}; name the files that hold them in `pool.restore`, or empty that "
            "list to ask one question everywhere"
        )
    lost = set(without)
    for item in candidates:
        if problem := _untrainable(item, known if item.record.id in lost else None):
            refused.append(_refuse(item.line, item.raw, problem))
        else:
            yield item


def _untrainable(item: Candidate, missed_in: set[str] | None) -> RecordProblem | None:
    """Why no training file can hold a record, or None; `missed_in`: the ids with questions, if it is none."""
    if (images := len(set(item.record.images))) > 1:
        return RecordProblem(Reason.SEVERAL_IMAGES, f"{images} distinct images; LLaVA's form holds one")
    if item.question and (why := question_problem(item.question)):
        return RecordProblem(Reason.QUESTION, why)
    if missed_in is not None:
        return RecordProblem(Reason.NO_QUESTION, f"no question to restore for {_missed(item.record.id, missed_in)}")
    return None


def _missed(record_id: str, known: set[str]) -> str:
    """The id, and the one that it may have been before something took it for a number."""
    widths = sorted({len(one) for one in known})
    before = next((record_id.zfill(width) for width in widths if record_id.zfill(width) in known), None)
    return f"`{record_id}` (lost its leading zeros? there is `{before}`)" if before else f"`{record_id}`"


def _refuse(line: int, raw: bytes, problem: RecordProblem | ImageProblem) -> Refused:
    shown = raw[:SHOWN_BYTES].decode("utf-8", "backslashreplace")
    return Refused(line, str(problem.reason), problem.detail, shown)


def _look_at_images(candidates: list[Candidate], pool: Pool) -> Iterable[Look]:
    """What is seen of each candidate's images, in order.

    Threads, because the time goes into waiting for the file system, on a shared one above all.
    """
    roots = roots_of(pool)
    for place in roots.places:
        if not Path(place).exists():
            raise FileNotFoundError(f"{place}: no such folder; put the images there or change `pool.images`")

    def look_at(candidate: Candidate) -> Look:
        states: list[State] = []
        try:
            for image in candidate.record.images:
                states.append(State())
                path = roots.resolve(image)
                source: Source = path
                with contextlib.suppress(OSError):  # which is told of when it is opened
                    states[-1], source = read_image(path)
                check_image(source, pool.reading, decode=pool.decode)
        except ImageProblem as problem:
            return Look(problem, states)
        return Look(None, states)

    found = map_threads(look_at, candidates, min(16, 4 * (os.cpu_count() or 1)))
    yield from progress(found, len(candidates), "images checked")


def _write_shards(file: PoolFile, kept: list[Candidate], layout: Layout) -> dict[str, dict[str, Any]]:
    """Publish every shard, empty ones too; returns rows and sha256 of each."""
    members: dict[str, list[Record]] = defaultdict(list)
    for item in kept:
        members[shard_name(file.name, item.record.id, file.shards)].append(item.record)
    written = {}
    for shard in shard_names(file.name, file.shards):
        path = layout.records("pool", shard)
        table = write_records(path, sorted(members[shard], key=lambda record: record.id))
        written[shard] = {"rows": table.num_rows, "sha256": sha256_file(path)}
    return written


def _write_quarantine(path: Path, file: PoolFile, refused: list[Refused]) -> None:
    with publish(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as output:
        for item in sorted(refused):
            output.write(json.dumps({"file": file.path, **item._asdict()}, ensure_ascii=False, sort_keys=True) + "\n")


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema)


def build_index(pool: Pool, layout: Layout) -> dict[str, Any]:
    """Merge the files' orders into the pool's index; when files share an id, the earlier configured file wins."""
    card = Card(inputs={file.name: sha256_file(layout.order(file.name)) for file in pool.files})
    table, facts = index_of(pool, layout)
    write_table(layout.index, table)
    return card.write(layout.index_card, sha256=sha256_file(layout.index), **facts)


def index_of(pool: Pool, layout: Layout) -> tuple[pa.Table, dict[str, Any]]:
    """The index, and what its card says of it."""
    orders = [read_table(layout.order(file.name), ["id", "shard"]).to_pandas() for file in pool.files]
    every = pd.concat(orders, keys=[file.name for file in pool.files])
    repeated = every["id"].duplicated(keep="first")
    index = every[~repeated]
    table = pa.Table.from_pandas(index, INDEX, preserve_index=False)
    counts = index.index.get_level_values(0).value_counts()
    facts = {
        "rows": len(index),
        "rows_by_file": {file.name: int(counts.get(file.name, 0)) for file in pool.files},
        "duplicate_across_files": int(repeated.sum()),
        "duplicate_examples": sorted(every["id"][repeated])[:5],
    }
    return table.replace_schema_metadata(None), facts  # pandas would leave its version there

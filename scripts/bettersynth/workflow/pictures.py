"""Pictures are inputs: what ingest has read of them, and which of them are others now.

A raw file's table of images holds the state in which ingest read every picture that a record names, one row for each
shard with such a record. Refused records' pictures are in it, too, so that a mended one is seen. While the graph is
built, size, times and inode are compared; what differs in these is read, and only other contents count. Of a picture
in an archive these are the archive's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bettersynth.configuration.pool import Pool
from bettersynth.configuration.storage import MemberError
from bettersynth.core.image_paths import ImageProblem
from bettersynth.core.layout import Layout
from bettersynth.core.parallel import batches, map_threads
from bettersynth.core.progress import progress
from bettersynth.core.publish import read_json, sha256_json, where_allowed, write_json
from bettersynth.core.tables import read_table, write_table
from bettersynth.workflow.archives import file_stat, sha256_at
from bettersynth.workflow.roots import Roots, roots_of

STATE = ("bytes", "mtime_ns", "ctime_ns", "inode")
IMAGES = pa.schema(
    [
        ("image", pa.string()),
        ("shard", pa.string()),
        *((name, pa.int64()) for name in STATE),
        ("sha256", pa.string()),
    ]
)
"""`pool/files/{file}.images.parquet`; a picture that could not be read has neither state nor sha256."""
SEEN = pa.schema([("root", pa.string()), *(field for field in IMAGES if field.name != "shard")])
"""`pool/files/{file}.seen.parquet`: pictures that were read again below the folder `root`, for the graph."""
AT_ONCE = 2000
"""Pictures that one task asks the file system for."""
THREADS = min(32, 8 * (os.cpu_count() or 1))
TOLD_SECONDS = 3.0
"""Looking that takes longer is told of."""
_ABSENT = (-1, -1, -1, -1)


class State(NamedTuple):
    """How a picture's file was found; without one, `bytes` is None."""

    bytes: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None
    inode: int | None = None
    sha256: str | None = None

    @classmethod
    def of(cls, stat: os.stat_result, sha256: str | None = None) -> State:
        """The state that the file system tells."""
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, sha256)

    def looks_like(self, other: State) -> bool:
        """Whether size and time of the last change are the same."""
        return (self.bytes, self.mtime_ns) == (other.bytes, other.mtime_ns)


class Look(NamedTuple):
    """What a look at a raw file's pictures came to."""

    root: str
    """The folder (or folders) of the images, as ingest last knew it while its pictures are the same there."""
    stamp: str | None = None
    """Changes whenever pictures do that decide what ingest makes of the file."""
    shards: tuple[str, ...] = ()
    """Shards whose pictures are others than ingest has read, or come or gone."""


class Known:
    """The states in which ingest read the pool's pictures, by name; of several rows of a name the last counts."""

    def __init__(self, table: pa.Table) -> None:
        self._rows = {image: row for row, image in enumerate(table["image"].to_pylist())}
        self._states = table.select(State._fields).combine_chunks()

    def state(self, image: str) -> State | None:
        """None for a picture that was not read, or of which an earlier version noted the size alone."""
        row = self._rows.get(image)
        if row is None:
            return None
        state = State(*(column[row].as_py() for column in self._states.columns))
        return None if state.sha256 is None else state


def known_pictures(pool: Pool, layout: Layout) -> Known:
    """What is known of the pool's pictures: of those that were read again since, with their present times."""
    columns = ["image", *State._fields]
    tables = [IMAGES.empty_table().select(columns)]
    for file in pool.files:
        if layout.images(file.name).exists():
            read = read_table(layout.images(file.name), columns)
            if "sha256" in read.column_names:
                tables += [
                    read.select(columns),
                    _seen_the_same(read, _seen(file.name, roots_of(pool).key, layout), columns),
                ]
    return Known(pa.concat_tables(tables))


def _seen_the_same(read: pa.Table, seen: pa.Table, columns: list[str]) -> pa.Table:
    """Of the pictures that were seen again, those whose contents are as they were read."""
    contents = dict(zip(read["image"].to_pylist(), read["sha256"].to_pylist(), strict=True)) if seen.num_rows else {}
    same = [contents.get(row["image"]) == row["sha256"] for row in seen.to_pylist()]
    return seen.filter(pa.array(same, pa.bool_())).select(columns)


def look(file: str, pool: Pool, layout: Layout) -> Look:
    """Compare a raw file's pictures with those that ingest has read, as `pool.check_images` says."""
    roots = roots_of(pool)
    if not (layout.file_ledger(file).exists() and layout.images(file).exists()):
        return Look(roots.key)
    ledger, table = read_json(layout.file_ledger(file)), read_table(layout.images(file))
    stamp, root = ledger.get("pictures"), ledger["parameters"]["images"]
    every = tuple(ledger["shards"])
    if pool.check_images == "never":
        return Look(root, stamp) if root == roots.key else Look(roots.key, stamp, every)
    if "sha256" not in table.column_names:
        return _look_by_size(table, roots, root, stamp, every)
    images, recorded = table["image"].to_pylist(), table["sha256"].to_pylist()
    anew = root != roots.key or pool.check_images == "always-hash"
    now = _read(
        images, _states(images, roots), table, file, roots, layout, anew=anew, trusts=pool.check_images != "always-hash"
    )
    changed = [row for row, sha256 in enumerate(recorded) if now[row] != sha256]
    if not changed:
        return Look(root, stamp)
    shards = sorted({table["shard"][row].as_py() for row in changed})
    return Look(roots.key, _stamp(stamp, [(images[row], now[row]) for row in changed]), tuple(shards))


def _stamp(before: str | None, changed: list[tuple[str, Any]]) -> str:
    return sha256_json([before, sorted(set(changed))])[:16]


def _look_by_size(table: pa.Table, roots: Roots, root: str, stamp: str | None, every: tuple[str, ...]) -> Look:
    """An earlier version has noted the sizes alone, and for no shard; then all of the file is read in anew."""
    images = table["image"].to_pylist()
    sizes = _states(images, roots)[:, 0].tolist()
    changed = [
        (image, size)
        for image, size, read in zip(images, sizes, table["bytes"].to_pylist(), strict=True)
        if size != read
    ]
    return Look(roots.key, _stamp(stamp, changed), every) if changed else Look(root, stamp)


def _states(images: Sequence[str], roots: Roots) -> npt.NDArray[np.int64]:
    """`[pictures, 4]`: what the file system says of each, or of the archive it lies in; -1 where there is none."""

    def ask(part: Sequence[str]) -> list[tuple[int, int, int, int]]:
        return [_state(roots.at(image)) for image in part]

    parts = list(batches(images, AT_ONCE))
    found = progress(map_threads(ask, parts, THREADS), len(images), "pictures looked at", len, least=TOLD_SECONDS)
    rows = [row for part in found for row in part]
    return np.array(rows, np.int64).reshape(-1, len(_ABSENT))


def _state(path: str) -> tuple[int, int, int, int]:
    try:
        stat = file_stat(path)
    except (OSError, ValueError):
        return _ABSENT
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _read(
    images: list[str],
    states: npt.NDArray[np.int64],
    table: pa.Table,
    file: str,
    roots: Roots,
    layout: Layout,
    *,
    anew: bool,
    trusts: bool,
) -> list[str | None]:
    """sha256 of every picture now; those whose state is neither as ingest read them nor as seen since are read.

    With `anew` what ingest read does not count, and unless `trusts` nor does what was seen since.
    """
    now: list[str | None] = table["sha256"].to_pylist()
    known = np.column_stack([table[name].fill_null(-1).to_numpy() for name in STATE]).reshape(-1, len(STATE))
    other = (states != known).any(axis=1)
    other |= anew
    seen = _seen(file, roots.key, layout).to_pylist() if trusts else []
    remembered = {row["image"]: (tuple(row[name] for name in STATE), row["sha256"]) for row in seen}
    due: dict[str, tuple[int, ...]] = {}
    for row in np.flatnonzero(other).tolist():
        state = tuple(states[row].tolist())
        if state == _ABSENT:
            now[row] = None
        elif (last := remembered.get(images[row])) and last[0] == state:
            now[row] = last[1]
        else:
            due[images[row]] = state
    if not due:
        return now
    found = dict(zip(due, _contents(list(due), roots), strict=True))
    for row in np.flatnonzero(other).tolist():
        now[row] = found.get(images[row], now[row])
    fresh = {image: (due[image], sha256) for image, sha256 in found.items()}
    _write_seen({**remembered, **fresh}, file, roots.key, layout)
    return now


def _contents(images: list[str], roots: Roots) -> Iterator[str | None]:
    """sha256 of each picture; None for one that is no file below the folders."""

    def read(image: str) -> str | None:
        try:
            return sha256_at(roots.resolve(image))
        except (ImageProblem, MemberError, OSError):
            return None

    return progress(map_threads(read, images, THREADS), len(images), "pictures read", least=TOLD_SECONDS)


def _seen(file: str, root: str, layout: Layout) -> pa.Table:
    """What was seen again below this folder."""
    path = layout.seen(file)
    table = read_table(path) if path.exists() else SEEN.empty_table()
    return table.filter(pc.equal(table["root"], root))


def _write_seen(seen: dict[str, tuple[tuple[int, ...], str | None]], file: str, root: str, layout: Layout) -> None:
    rows = [(root, image, *state, sha256) for image, (state, sha256) in sorted(seen.items())]
    columns = zip(*rows, strict=True)
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, SEEN, strict=True)], SEEN)
    with where_allowed():
        write_table(layout.seen(file), table)


# what jobs are told, which look at no pictures for themselves
def remember(looks: dict[str, Look], layout: Layout) -> None:
    """Note what the graph was built by."""
    noted = {file: found._asdict() for file, found in looks.items()}
    if noted != (read_json(layout.looks) if layout.looks.exists() else {}):
        with where_allowed():
            write_json(layout.looks, noted)


def remembered(file: str, pool: Pool, layout: Layout) -> Look:
    """What the graph was last built by."""
    noted = read_json(layout.looks) if layout.looks.exists() else {}
    return (
        Look(**{**noted[file], "shards": tuple(noted[file]["shards"])}) if file in noted else Look(roots_of(pool).key)
    )

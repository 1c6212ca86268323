"""Members of archives, by paths that lead through these: found by an index, and read from where they lie.

An archive's index (member, offset, size) is made once, from its own headers, and remembered for this account by the
archive's inode, size and times, as digests are; it is mapped into memory, so that many processes share it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from bettersynth.configuration.storage import ArchiveError, Member, MemberError, Storage, storage_of
from bettersynth.core.own import open_file
from bettersynth.core.publish import publish, sha256_bytes, sha256_file

FORM = b"1"
"""Counted up when the meaning of an index changes."""
MOST_OPEN = 200
"""Archives that a process holds open."""

State = tuple[int, int, int, int]
"""Inode, size and times."""


class Archive:
    """An archive that is open, with the index of its members as its file was then."""

    def __init__(self, path: Path, file: BinaryIO, state: State, storage: Storage, table: pa.Table) -> None:
        self.path = path
        self.state = state
        self._file = file
        self._storage = storage
        self._table = table  # holds the memory
        names = table["name"].combine_chunks()
        _, ends, text = names.buffers() if len(names) else (None, b"\0" * 8, b"")
        self._ends = np.frombuffer(ends, np.int64)[: len(names) + 1]
        self._text = memoryview(text if text is not None else b"")
        problems = table["problem"].to_pylist() if len(names) else []
        self._problems = {row: problem for row, problem in enumerate(problems) if problem}
        self._place = [table[column].combine_chunks().to_numpy() for column in storage.place]

    def __len__(self) -> int:
        return len(self._ends) - 1

    def _name(self, row: int) -> bytes:
        return bytes(self._text[self._ends[row] : self._ends[row + 1]])

    def _member(self, row: int) -> Member:
        place = tuple(int(column[row]) for column in self._place)
        return Member(os.fsdecode(self._name(row)), self._problems.get(row, ""), place)

    def find(self, name: str) -> Member | None:
        """The member of a name, if there is one."""
        wanted = os.fsencode(name)
        row = bisect_left(range(len(self)), wanted, key=self._name)
        return self._member(row) if row < len(self) and self._name(row) == wanted else None

    def members(self) -> Iterator[Member]:
        """All, as they come in the archive."""
        order = np.argsort(self._place[0], kind="stable") if self._place else range(len(self))
        return (self._member(int(row)) for row in order)

    def read(self, member: Member) -> bytes:
        """A member's bytes. Raises MemberError for one that is not read, or is damaged."""
        if member.problem:
            raise MemberError(f"{self.path}: its member {member.name} {member.problem}")
        return self._storage.read(self._file, self.path, member)


_open: OrderedDict[str, Archive | ArchiveError] = OrderedDict()
_states: dict[str, State] = {}
_lock = threading.RLock()


def archive(path: str | Path) -> Archive:
    """The archive at `path`, as it is now. Raises ArchiveError or OSError."""
    key = str(path)
    state = state_of(path)
    with _lock:
        if _states.get(key) != state:
            _open.pop(key, None)
        if key not in _open:
            _states[key] = state
            try:
                _open[key] = _opened(Path(path), state)
            except ArchiveError as error:
                _open[key] = error  # or it would be looked through for each of its members
            while len(_open) > MOST_OPEN:
                _states.pop(_open.popitem(last=False)[0])
        _open.move_to_end(key)
        found = _open[key]
    if isinstance(found, ArchiveError):
        raise ArchiveError(*found.args)
    return found


def _opened(path: Path, state: State) -> Archive:
    storage, file = storage_of(path), open_file(path)
    remembered = _memory(path)
    table = None
    with contextlib.suppress(OSError, ValueError, KeyError):  # none yet, damaged, or not ours to read
        table = _table(remembered, state, storage)
    if table is None:
        table = _index(storage, file, path)
        with contextlib.suppress(OSError):  # a home that cannot be written to: looked through again next time
            _remember(remembered, table, state)
    return Archive(path, file, state, storage, table)


def _index(storage: Storage, file: BinaryIO, path: Path) -> pa.Table:
    """Members by name; one of a name that comes twice is not read, for nobody could say which is meant."""
    found: dict[bytes, Member] = {}
    for member in storage.members(file, path):
        name = os.fsencode(member.name)
        found[name] = member._replace(problem="is in it twice") if name in found else member
    names = sorted(found)
    columns: dict[str, Any] = {
        "name": pa.array(names, pa.large_binary()),
        "problem": pa.array([found[name].problem for name in names], pa.string()),
    }
    for number, column in enumerate(storage.place):
        places = (found[name].place for name in names)
        columns[column] = pa.array([place[number] if place else 0 for place in places], pa.int64())
    return pa.table(columns)


def _memory(path: Path) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "bettersynth" / "archives" / f"{sha256_bytes(os.fsencode(path.resolve()))[:32]}.arrow"


def _table(path: Path, state: State, storage: Storage) -> pa.Table | None:
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    mark = (table.schema.metadata or {}).get(b"state")
    return table if mark == _mark(state) and table.column_names[2:] == list(storage.place) else None


def _remember(path: Path, table: pa.Table, state: State) -> None:
    with publish(path) as temporary, pa.OSFile(str(temporary), "wb") as sink:
        table = table.replace_schema_metadata({b"state": _mark(state)})
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())


def _mark(state: State) -> bytes:
    return b" ".join([FORM, *(str(number).encode() for number in state)])


def state_of(path: str | Path) -> State:
    """Inode, size and times of a file. Raises OSError."""
    found = os.stat(path)  # noqa: PTH116 - asked for every member
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


# --- paths that lead through archives ------------------------------------------------------------


def split(path: str | Path) -> tuple[str, str] | None:
    """The archive that a path leads through, and the member's name; None where no file is on the way."""
    head, tail = os.path.split(path)
    while tail:
        with contextlib.suppress(OSError):
            return (head, os.path.relpath(path, head)) if stat.S_ISREG(os.stat(head).st_mode) else None  # noqa: PTH116
        head, tail = os.path.split(head)
    return None


def file_of(path: str | Path) -> str:
    """The file that holds what a path names: itself, or the archive that it leads through."""
    found = None if os.path.exists(path) else split(path)  # noqa: PTH110
    return found[0] if found else str(path)


def file_stat(path: str | Path) -> os.stat_result:
    """What the file system says of the file that holds what a path names. Raises OSError."""
    try:
        return os.stat(path)  # noqa: PTH116 - in a loop over hundreds of thousands
    except NotADirectoryError:
        return os.stat(file_of(path))  # noqa: PTH116


def is_there(path: str | Path) -> bool:
    """Whether there is a file, or a member of an archive, at a path."""
    if os.path.isfile(path):  # noqa: PTH113
        return True
    found = split(path)
    try:
        return found is not None and archive(found[0]).find(found[1]) is not None
    except OSError:
        return False


def read_member(path: str | Path) -> bytes:
    """The bytes of the member that a path names. Raises FileNotFoundError, MemberError or OSError."""
    found = split(path)
    member = archive(found[0]).find(found[1]) if found else None
    if found is None or member is None:
        raise FileNotFoundError(f"{found[0]}: has no member {found[1]}" if found else f"{path}: no such file")
    return archive(found[0]).read(member)


def read_bytes(path: str | Path) -> bytes:
    """The bytes of the file, or of the member of an archive, at a path. Raises OSError or MemberError."""
    try:
        with open_file(path) as file:
            return file.read()
    except NotADirectoryError:
        return read_member(path)


def sha256_at(path: str | Path) -> str:
    """Hex digest of the file, or of the member of an archive, at a path. Raises OSError or MemberError."""
    try:
        return sha256_file(path)
    except NotADirectoryError:
        return sha256_bytes(read_member(path))

"""What files hold: the sha256 of all their bytes, remembered by inode, size and times.

The one service that raw files, other inputs, models and results are told apart by. A file that was read before, on
this account, and has the same inode, size and times since is not read again; nobody can set the time of a file's last
change (ctime), so a byte that is changed in place is always seen.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bettersynth.core.parallel import map_threads
from bettersynth.core.progress import progress
from bettersynth.core.publish import read_json, sha256_bytes, sha256_file, sha256_json, write_json
from bettersynth.core.remedy import DamagedError

TOLD_SECONDS = 3.0
"""Reading that takes longer is told of."""
TICK_NS = 20_000_000
"""Longer than the steps in which Linux counts the times of files."""
COARSE_TICK_NS = 2_100_000_000
"""The same of file systems that count in seconds."""


def digest(path: str | Path) -> str:
    """Hex sha256 of a file's bytes. Raises FileNotFoundError."""
    return digests([path])[Path(path)]


def digests(paths: Iterable[str | Path]) -> dict[Path, str]:
    """File → hex sha256 of its bytes; those that are not remembered are read in threads. Raises FileNotFoundError."""
    states = {path: _state(path) for path in map(Path, paths)}
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in states:
        folders[path.parent.resolve()].append(path)
    known = {folder: _remembered(folder) for folder in folders}
    found: dict[Path, str] = {}
    for folder, files in folders.items():
        for path in files:
            if (entry := known[folder].get(path.name)) and entry[:-1] == states[path]:
                found[path] = entry[-1]
    due = [path for path in states if path not in found]
    if not due:
        return found
    _let_clock_tick(max(states[path][3] for path in due))
    due.sort(key=lambda path: -states[path][1])  # the longest first, or the last thread works alone
    read = progress(map_threads(sha256_file, due, os.cpu_count() or 1), len(due), "files read", least=TOLD_SECONDS)
    found |= dict(zip(due, read, strict=True))
    for folder in {path.parent.resolve() for path in due}:
        new = {path.name: [*states[path], found[path]] for path in folders[folder]}
        kept = {name: entry for name, entry in known[folder].items() if (folder / name).exists()}
        with contextlib.suppress(OSError):  # a home that cannot be written to: read again next time
            write_json(_memory(folder), kept | new, indent=None)
    return found


def check_by_card(path: str | Path, card: Path) -> None:
    """`check` by a card's `sha256`; a card that is missing, or says none, is not held against anything.

    Path and card are made by one job.
    """
    sha256 = read_json(card).get("sha256") if card.exists() else None
    if sha256 is not None:
        check(path, sha256, card)


def check(path: str | Path, sha256: str, *with_it: str | Path) -> None:
    """Raise DamagedError unless a file (or model folder) holds what its card says.

    `with_it` are files, such as that card, which have to go with it for it to be made again.
    """
    if not Path(path).exists():
        raise DamagedError(path, "it is gone", *with_it)
    if (found := sha256_folder(path)) != sha256:
        raise DamagedError(path, f"its card says sha256 {sha256[:12]}…, it has {found[:12]}…", *with_it)


def file_digests(path: str | Path) -> dict[str, str]:
    """Name in the folder → hex sha256 of every file below it, hidden ones left out, in order (or of one file)."""
    path = Path(path)
    files = {path.name: path} if path.is_file() else files_below(path)
    found = digests(files.values())
    return {name: found[file] for name, file in files.items()}


def sha256_folder(path: str | Path) -> str:
    """Hex digest over the names and bytes of a model folder's files (or of a single file).

    Documentation (`*.md`) and hidden files do not change what a model computes and do not count.
    """
    path = Path(path)
    if path.is_file():
        return digest(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such model folder; put the model there or change its `path` in `models`")
    return sha256_json(_counted(path))


def model_identity(path: str | Path) -> str | None:
    """The `sha256_folder` of a model, or None when nothing of it is there."""
    path = Path(path)
    return sha256_folder(path) if path.is_file() or (path.is_dir() and _counted(path)) else None


def _counted(folder: Path) -> dict[str, str]:
    return {name: sha256 for name, sha256 in file_digests(folder).items() if counts_in_folder(name)}


def counts_in_folder(name: str) -> bool:
    """Whether a file of a model folder, by its name in it, decides what the model computes."""
    return not name.startswith(".") and not name.endswith(".md")


def files_below(folder: Path) -> dict[str, Path]:
    """Name in the folder → path of every file below it, hidden ones left out, in order."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    return {name: files[name] for name in sorted(files) if not name.startswith(".") and "/." not in name}


def _state(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _let_clock_tick(changed: int) -> None:
    """Wait until a change after this moment has another time than `changed`: file systems count in steps.

    Those of exFAT, and of old network disks, are whole seconds.
    """
    step = TICK_NS if changed % 1_000_000_000 else COARSE_TICK_NS
    if 0 <= time.time_ns() - changed < step:
        time.sleep(step / 1e9)


def _remembered(folder: Path) -> dict[str, Any]:
    memory = _memory(folder)
    try:
        known: dict[str, Any] = read_json(memory) if memory.exists() else {}
    except (OSError, ValueError):  # damaged, or not ours to read: all is read again
        known = {}
    return known


def _memory(folder: Path) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "bettersynth" / "digests" / f"{sha256_bytes(str(folder).encode())[:32]}.json"

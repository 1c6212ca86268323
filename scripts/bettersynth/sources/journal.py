"""A journal of finished work: what a killed job had done is found again by the next."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from bettersynth.core.publish import SEAL, seal_of

logger = logging.getLogger(__name__)


def read_line(raw: bytes) -> dict[str, Any] | None:
    """What a line holds, its `key` too; None when it is damaged. Lines of earlier versions carry no seal."""
    try:
        line: dict[str, Any] = json.loads(raw)
        return line if "key" in line and line.pop(SEAL, None) in (None, seal_of(line)) else None
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def _line(entry: dict[str, Any]) -> str:
    return json.dumps({**entry, SEAL: seal_of(entry)}, ensure_ascii=False, sort_keys=True)


class Journal:
    """An append-only file of JSON lines, each with a `key`; the last line of a key counts.

    A line that a killed job left unfinished is cut off, and one whose bytes are not those that were written is passed
    over, with a word in the log: what it holds is made again. One job at a time writes to a journal.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)
        self._entries: dict[str, dict[str, Any]] = {}
        for number, raw in enumerate(content[:whole].splitlines(), 1):
            line = read_line(raw)
            if line is None:
                logger.warning("%s: line %d is damaged, and what it holds is made again", self.path, number)
            else:
                self._entries[line.pop("key")] = line

    def get(self, key: str) -> dict[str, Any] | None:
        """The entry of a key, or nothing."""
        return self._entries.get(key)

    def append(self, entries: dict[str, dict[str, Any]]) -> None:
        """Add entries and wait until they are on the disk."""
        lines = [_line({"key": key, **entry}) for key, entry in entries.items()]
        with self.path.open("ab") as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
        self._entries.update(entries)

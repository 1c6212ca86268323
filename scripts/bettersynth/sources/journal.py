"""A journal of finished work: what a killed job had done is found again by the next."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Journal:
    """An append-only file of JSON lines, each with a `key`; the last line of a key counts.

    A line that a killed job left unfinished is cut off. One job at a time writes to a journal.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)
        lines = map(json.loads, content[:whole].splitlines())
        self._entries: dict[str, dict[str, Any]] = {line.pop("key"): line for line in lines}

    def get(self, key: str) -> dict[str, Any] | None:
        """The entry of a key, or nothing."""
        return self._entries.get(key)

    def append(self, entries: dict[str, dict[str, Any]]) -> None:
        """Add entries and wait until they are on the disk."""
        lines = [
            json.dumps({"key": key, **entry}, ensure_ascii=False, sort_keys=True) for key, entry in entries.items()
        ]
        with self.path.open("ab") as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
        self._entries.update(entries)

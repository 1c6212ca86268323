"""Records as lines of JSON, or as one JSON list; their pictures lie elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from bettersynth.configuration.pool import PoolFile
from bettersynth.configuration.storage import Container, Contents, Storage
from bettersynth.core.raw import RawLine, RecordProblem, other_kind, parse_json, raw_lines

LOOKED_INTO = 100
"""Records whose keys a first look notes."""


class Lines(Storage):
    """What every file is read as whose name says nothing else."""

    endings = ("",)
    form = "JSON lines (Data-Juicer's form or LLaVA's) or one JSON list (LLaVA's)"

    def problem(self, path: Path) -> str | None:
        return other_kind(path)

    def lines(self, file: PoolFile, containers: Iterable[Container]) -> Iterator[RawLine]:
        before = number = 0
        for container in containers:
            for line in raw_lines(container.path):
                number = before + line.number
                yield line._replace(number=number) if before else line
            before = number

    def contents(self, path: Path) -> Contents:
        records, fields = 0, dict[str, None]()
        for line in raw_lines(path):
            if line.raw.strip():
                records += 1
                if records <= LOOKED_INTO:
                    with suppress(RecordProblem, AttributeError):  # an odd line is ingest's to quarantine
                        fields.update(dict.fromkeys(parse_json(line.raw).keys()))
        return Contents(records, tuple(fields), {})


LINES = Lines()

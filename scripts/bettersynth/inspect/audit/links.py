"""What links are looked at with: cards by their seals, files by their cards, tables by what they were made of."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from bettersynth.configuration.types import Configuration
from bettersynth.core.cached import cached_method
from bettersynth.core.commands import make
from bettersynth.core.digests import digest, sha256_folder
from bettersynth.core.layout import Layout
from bettersynth.core.publish import SEAL, read_json, seal_of, sha256_file
from bettersynth.core.remedy import DamagedError, again, config_of
from bettersynth.core.tables import read_table
from bettersynth.pool.rows import read_rows
from bettersynth.workflow.jobs import Jobs
from bettersynth.workflow.manifest import Problem
from bettersynth.workflow.plan import Plan


class Link(NamedTuple):
    """A file of a run, and what it is held against."""

    path: Path
    problems: Callable[[], Iterator[Problem]]


class Audited:
    """A run that is looked at. With `all_bytes` nothing that is remembered of files is believed."""

    def __init__(self, configuration: Configuration, layout: Layout, plan: Plan, *, all_bytes: bool = False) -> None:
        self.configuration, self.layout, self.plan, self.all_bytes = configuration, layout, plan, all_bytes

    @cached_property
    def jobs(self) -> Jobs:
        """The run's jobs."""
        return Jobs(self.configuration, self.layout, self.plan)

    def look_at(self, link: Link) -> Iterator[Problem]:
        """What is wrong with a link; a file that cannot be read is."""
        try:
            yield from link.problems()
        except DamagedError as error:
            yield Problem(error.path, error.what, again(error.path, *error.with_it))
        except FileNotFoundError as error:
            yield self.problem(link.path, f"{error.filename} is gone, of which it was made")
        except Exception as error:  # readers of JSON and tables fail in many ways; all mean the same here
            yield self.problem(link.path, f"cannot be held against what it is of: {type(error).__name__}: {error}")

    def problem(self, path: Path, what: str, *with_it: Path) -> Problem:
        """A problem that is mended by making a file again."""
        return Problem(path, what, again(path, *with_it))

    def outdated(self, path: Path, what: str) -> Problem:
        """A problem that the next run mends by itself: the file was made of something that is another now."""
        return Problem(path, what, make("run", config=config_of(path)))

    def sha256(self, path: Path) -> str:
        """The digest of a file, or of a model's folder."""
        if path.is_dir():
            return sha256_folder(path)
        return sha256_file(path) if self.all_bytes else digest(path)

    @cached_method
    def card(self, path: Path) -> dict[str, Any]:
        """A card or result; raises DamagedError unless every byte is as it was written."""
        card: dict[str, Any] = read_json(path)
        if not isinstance(card, dict) or card.get(SEAL, seal_of(card)) != seal_of(card):
            raise DamagedError(path, "what it says is not what was written into it")
        return card

    def check(self, path: Path, sha256: str, card: Path) -> None:
        """Raise DamagedError unless a file holds what its card says."""
        if not path.exists():
            raise DamagedError(path, "it is gone", card)
        if (found := self.sha256(path)) != sha256:
            raise DamagedError(path, f"its card says sha256 {sha256[:12]}…, it has {found[:12]}…", card)

    def check_beside(self, card: Path, *, may_be_gone: bool = False) -> None:
        """The same of each file that the card names beside its result."""
        for name, sha256 in self.card(card).get("files", {}).items():
            path = Path(os.path.normpath(card.parent / name))
            if path.exists() or not may_be_gone:
                self.check(path, sha256, card)

    def made_of(self, path: Path, inputs: Mapping[str, str], files: Mapping[str, Path]) -> Iterator[Problem]:
        """Inputs, by name, that are other files now than those that `path` was made of; what is not here is passed."""
        for name, sha256 in inputs.items():
            file = files.get(name, Path(name))
            if file.exists() and self.sha256(file) != sha256:
                yield self.outdated(path, f"was made of another {file} than is there now")

    @cached_method
    def rows(self, dataset: str) -> pa.Table:
        """The rows of a dataset."""
        return read_rows(dataset, self.layout)

    @cached_method
    def ids(self, source: str, shard: str) -> pa.ChunkedArray:
        """The ids of the records of a shard."""
        return read_table(self.layout.records(source, shard), ["id"])["id"].combine_chunks()

    def mismatch(self, path: Path, what: str, found: Any, expected: Any, *with_it: Path) -> Iterator[Problem]:
        """A problem, if two values that have to be equal are not."""
        if found != expected:
            yield self.problem(path, f"{what}: {_short(found)}, and not {_short(expected)}", *with_it)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:120]}…"

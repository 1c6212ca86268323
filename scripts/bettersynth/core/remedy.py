"""The command that makes a file of a run again, for error messages."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from bettersynth.core.commands import CONFIG_FILE, make
from bettersynth.core.errors import PersonError


class DamagedError(PersonError, ValueError):
    """A file does not hold what was written into it; the message names it and, of a run's, what makes it again."""

    def __init__(self, path: str | Path, what: str, *with_it: str | Path) -> None:
        self.path, self.what, self.with_it = Path(path), what, with_it
        mend = f". Make it again: {again(path, *with_it)}" if "results" in Path(path).parts else ""
        super().__init__(f"{path}: damaged: {what}{mend}")

    def __reduce__(self) -> tuple[type[ValueError], tuple[str]]:  # it crosses processes as what it says
        return ValueError, (str(self),)


def again(path: str | Path, *with_it: str | Path) -> str:
    """For the shell: remove a file of a results folder, with the cards that go with it, and run what makes it."""
    removed = dict.fromkeys(map(str, (path, *with_it, *_cards(Path(path)))))
    return f"rm -rf {shlex.join(removed)} && {make('run', config=config_of(path))}"


def _cards(path: Path) -> list[Path]:
    """Cards that are there for a file: of some files Snakemake looks at the cards alone."""
    name = path.name.partition(".")[0]
    cards = [path.with_name(f"{name}.json"), path.with_name("card.json")]
    if path.parts[-3:-1] == ("pool", "records"):
        cards = [path.parents[1] / "files" / f"{name.rpartition('-')[0]}.json"]
    if len(path.parts) > 3 and path.parts[-4] == "scores":  # a shard's, which the card of a pass names by its key
        key = path.stem.rpartition("-")[2].encode()
        passes = sorted((path.parents[1] / "passes").glob("*/*.json"))
        cards += [card for card in passes if key in card.read_bytes()]
    return [card for card in cards if card.exists()]


def config_of(path: str | Path) -> str:
    """The configuration's file that the results of `path` belong to: this process's, or the usual one of its name."""
    parts = Path(path).parts
    name = parts[parts.index("results") + 1] if "results" in parts[:-1] else "…"
    return os.environ.get(CONFIG_FILE) or f"config/{name}.yaml"

"""What a stage made before, or another recipe's stage made of the same inputs: nothing is trained twice.

A stage's folder remembers in `done.json` what it was made from. Asked for the same again, a stage publishes its card
again; a stage of another recipe that was made from the same gives its result, as a second name of the same files.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bettersynth.core.digests import files_below
from bettersynth.core.layout import CARD
from bettersynth.core.publish import Card, publish, publish_folder, read_json, sha256_file, write_json, write_sealed
from bettersynth.training.mgm.processes import is_main_process

logger = logging.getLogger(__name__)

DONE = "done.json"
RESUME = "checkpoints"
LOG = "log.jsonl"
LOST = "lost.jsonl"
"""Rows whose pictures were good at the preflight and could not be read in training."""


def made_before(
    folder: Path,
    inputs: dict[str, Any],
    result: str | None = None,
    digest: Callable[[Path], str] = sha256_file,
    drop: tuple[Path, ...] = (),
) -> dict[str, Any] | None:
    """The card of an earlier run from the same inputs, published again; None when the stage has to run.

    Checkpoints in `drop` go, as when the run finished: it may have been killed just before. A finished run from other
    inputs makes way, and with it the checkpoint that a probe leaves.
    """
    try:
        card: dict[str, Any] = read_json(folder / DONE)
    except FileNotFoundError:  # never made, or another process has just removed it
        return None
    whole = result is None or card["status"] != "done" or _is_intact(folder / result, digest, card["sha256"])
    if card["inputs"] == inputs and whole:
        if is_main_process():
            logger.info("%s was made before, of the same inputs: nothing is trained", folder)
            write_sealed(folder / CARD, card)
            _drop(drop)
        return card
    if is_main_process():
        (folder / DONE).unlink(missing_ok=True)
        shutil.rmtree(folder / RESUME, ignore_errors=True)
    return None


def made_elsewhere(
    recipe: str, folder: Path, inputs: dict[str, Any], result: str, digest: Callable[[Path], str] = sha256_file
) -> dict[str, Any] | None:
    """The card of a stage that another recipe made from the same inputs with the same seed, and its result, put here.

    None when there is none. The card names that recipe as `taken_over_from`.
    """
    for done in sorted(folder.parents[2].glob(f"*/{folder.parent.name}/{folder.name}/{DONE}")):
        other = done.parent
        try:
            card = read_json(done)
        except FileNotFoundError:  # another job makes that anew
            continue
        if other == folder or card["status"] != "done" or card["inputs"] != inputs:
            continue
        if not _is_intact(other / result, digest, card["sha256"]):
            continue
        taken = card | {"recipe": recipe, "taken_over_from": card["recipe"], "seconds": 0.0}
        if is_main_process():
            logger.info("%s is of the same inputs: it is taken over, and nothing is trained", other)
            _link(other / result, folder / result)
            for name in (LOG, LOST):
                if (other / name).exists():
                    shutil.copy2(other / name, folder / name)
            taken = write_sealed(folder / CARD, taken)
            _remember(folder, taken, drop=(folder,))
        return taken
    return None


def finish(folder: Path, card: Card, drop: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Write card and `done.json`, and remove the checkpoints in `drop`, which nothing will resume from."""
    if not is_main_process():
        return card.facts
    kept = [] if folder in drop else list(files_below(folder / RESUME).values())
    beside = [path for name in (LOG, LOST) if (path := folder / name).exists()]
    written = card.write(folder / CARD, beside=[*beside, *kept])
    _remember(folder, written, drop)
    return written


def _remember(folder: Path, card: dict[str, Any], drop: tuple[Path, ...]) -> None:
    write_json(folder / DONE, card)
    _drop(drop)


def _drop(folders: tuple[Path, ...]) -> None:
    for place in folders:
        shutil.rmtree(place / RESUME, ignore_errors=True)


def _is_intact(path: Path, digest: Callable[[Path], str], sha256: str) -> bool:
    return path.exists() and digest(path) == sha256


def _link(source: Path, target: Path) -> None:
    """Give a file, or a folder's files, a second name; a copy where the file system has none."""
    if source.is_dir():
        with publish_folder(target) as temporary:
            shutil.copytree(source, temporary, copy_function=_link_file, dirs_exist_ok=True)
    else:
        with publish(target) as temporary:
            _link_file(source, temporary)


def _link_file(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)

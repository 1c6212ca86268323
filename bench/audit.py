"""Seconds of `make audit` over a run of 410,000 records: all scores, the best recipe's datasets and training files."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import ROOT
from bench._drawn import write_pool
from bench._plane import DataPlane
from bench.dry_run import place_inputs
from bettersynth.core.publish import read_json
from bettersynth.core.records import POOL

RECIPES = ("similar", "similar_matched", "best", "common_x2")
"""With their ancestors nearly every verb, and new captions; no picture is drawn anew."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--records", type=int, default=410_000, help="records of the pool (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="folder for everything that is made; kept if given")


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Make the run, its scores and captions drawn, and audit it, nothing remembered."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options.out = options.out.resolve()
    return audited(options.records, options.folder)


def audited(records: int, folder: Path | None = None) -> dict[str, float]:
    """Rows and seconds, by the names of figures. Raises RuntimeError when the audit finds fault with a sound run."""
    with contextlib.ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(place / "cache", ignore_errors=True)  # of digests: the first audit has none
        stack.enter_context(contextlib.chdir(place))
        plane = DataPlane(ROOT / "config" / "contest.yaml")
        if not plane.layout.trainset_card(RECIPES[-1]).exists():  # else the folder has a whole run
            _make(plane, records)
        rows = [read_json(card)["rows"] for card in plane.layout.root.glob("datasets/*/card.json")]
        return {
            "audit_records": read_json(plane.layout.dataset_card(POOL))["rows"],
            "audit_datasets": len(rows),
            "audit_rows_of_datasets": sum(rows),
            **_taken("audit_410k", plane.config),
        }


def _make(plane: DataPlane, records: int) -> None:
    place_inputs(plane.configuration, Path())
    write_pool(plane.configuration, records)
    plane.ingest()
    plane.scores(POOL, plane.configuration.operators)
    plane.datasets(plane.configuration.recipes[recipe].dataset for recipe in RECIPES)
    plane.trainsets(RECIPES)


def _taken(name: str, config: Path) -> dict[str, float]:
    """Seconds of one call, the start of Python among them, by the clock and of processors."""
    command = [sys.executable, "-m", "bettersynth", "audit", "--config", str(config)]
    cache = str(Path("cache").absolute())
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts"), "XDG_CACHE_HOME": cache}
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"a run that nobody touched does not hold:\n{done.stdout}\n{done.stderr}")
    seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {f"{name}_seconds": round(seconds, 1), f"{name}_cpu_seconds": round(cpu, 1)}

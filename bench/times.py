"""Seconds of `make demo` (its environment set up before) and of `.ci/run` at two commits, which take turns.

Each commit is checked out into a folder of its own, which is swept before every run. Run it on a machine that does
nothing else; CPU seconds are told too, which other work hardly changes. A figure is the median of its rounds.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from bench import ROOT

WHAT = {"demo": ("make", "demo"), "ci": (".ci/run",)}
"""What is timed."""
KEPT = (".venv", "models")
"""What `make setup` makes, which stays where setting up is not timed."""
SET_CHILD_SUBREAPER = 36
"""Of Linux's prctl: orphans below this process are its children."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--before", required=True, help="the earlier commit")
    parser.add_argument("--after", default="HEAD", help="the later commit (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (default: %(default)s)")
    parser.add_argument("--only", choices=WHAT, help="time one of the two")
    parser.add_argument("--folder", type=Path, help="where the commits are checked out, to stay there")
    parser.add_argument("--repository", type=Path, default=ROOT, help="(default: %(default)s)")


class Spent(NamedTuple):
    """What a command took."""

    seconds: float
    cpu_seconds: float


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Time both at both commits, in turns. RuntimeError when a command fails, with the end of what it printed."""
    wanted = [options.only] if options.only else list(WHAT)
    spent: defaultdict[str, list[Spent]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        sides = {"_before": folder / "before", "": folder / "after"}
        for side, commit in zip(sides.values(), (options.before, options.after), strict=True):
            check_out(options.repository, commit, side)
        for _ in range(options.rounds):
            for what in wanted:
                for name, side in sides.items():
                    spent[f"{what}_seconds{name}"].append(timed(what, side))
    figures = {"rounds": float(options.rounds)}
    for name, runs in sorted(spent.items(), reverse=True):
        figures[name] = round(statistics.median(run.seconds for run in runs), 1)
    for name, runs in sorted(spent.items(), reverse=True):
        figures[name.replace("_seconds", "_cpu_seconds")] = round(statistics.median(run.cpu_seconds for run in runs), 1)
    return figures


def check_out(repository: Path, commit: str, folder: Path) -> None:
    """Have a clone of the repository at that commit in the folder."""
    name = subprocess.check_output(["git", "-C", repository, "rev-parse", f"{commit}^{{commit}}"], text=True).strip()
    if not folder.exists():
        call(["git", "clone", "--quiet", "--no-checkout", str(repository.resolve()), str(folder)], folder.parent)
    call(["git", "checkout", "--quiet", "--detach", name], folder)


def timed(what: str, folder: Path) -> Spent:
    """Sweep the checkout, and time one run there."""
    kept = KEPT if what == "demo" else ()
    call(["git", "clean", "-ffdxq", *(f"--exclude=/{name}" for name in kept)], folder)
    if what == "demo":
        call(["make", "setup"], folder)
    spent = call(WHAT[what], folder)
    print(f"{folder.name} {what}: {spent.seconds:.1f} s, {spent.cpu_seconds:.1f} CPU s", file=sys.stderr, flush=True)
    return spent


def call(command: Sequence[str], folder: Path) -> Spent:
    """Run a command there to its end, and that of all that it left behind."""
    folder.mkdir(parents=True, exist_ok=True)
    others = _children()
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before, began = _cpu_seconds(), time.monotonic()
    # what was asked of the `make` that called us is not for theirs
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTHONPATH"))}
    with tempfile.TemporaryFile("w+") as output:
        ended = subprocess.run(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        seconds = time.monotonic() - began
        output.seek(0)
        if ended.returncode:
            raise RuntimeError(f"{' '.join(command)} failed in {folder}:\n{output.read()[-4000:]}")
    for orphan in _children() - others:  # its CPU seconds count when it was waited for
        os.waitpid(orphan, 0)
    return Spent(seconds, _cpu_seconds() - before)


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime

"""Our commands and Snakemake in processes of their own, forked from one that has their imports behind it.

A Snakemake that only says what it would do spends two of its three seconds on imports, a command most of its one. What
is forked is a process as any other, with its own folder, environment, output and exit code. Its jobs are forked, too,
as in any run (`patches.forked_jobs`), but from one process for all runs of the tests, whose imports take
eight seconds. What a person types, and `make`, is tested without this module.
"""

from __future__ import annotations

import atexit
import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache, partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from bettersynth.runtime.patches import forked_jobs

ROOT = Path(__file__).resolve().parents[2]
OURS = {"", str(ROOT), str(ROOT / "scripts")}
Ended = subprocess.CompletedProcess[str]

_processes = multiprocessing.get_context("forkserver")
# nothing that reads the environment when it is imported, as huggingface_hub does
_processes.set_forkserver_preload(["snakemake.cli", "snakemake_executor_plugin_slurm", "bettersynth.runtime.job"])
IMPORTED_FOR_JOBS = (
    "bettersynth.runtime.offline",
    "snakemake.cli",
    "bettersynth.runtime.job",
    "bettersynth.operators.batched.scorer",
    "bettersynth.training.mgm.training",
    "bettersynth.training.mgm.generation",
    "bettersynth.sources.make",
    "bettersynth.report.page",
)


def bettersynth(*arguments: object, folder: Path, environment: Mapping[str, str] = os.environ) -> Ended:
    """What comes of the command `bettersynth`, called there."""
    return _call("bettersynth.cli.main", "bettersynth", arguments, folder, environment)


def snakemake(*arguments: object, folder: Path, environment: Mapping[str, str] = os.environ) -> Ended:
    """What comes of the command `snakemake`, called there."""
    return _call("snakemake.cli", "snakemake", arguments, folder, environment)


def _call(module: str, name: str, arguments: Sequence[object], folder: Path, environment: Mapping[str, str]) -> Ended:
    command = [str(Path(sys.executable).with_name(name)), *map(str, arguments)]
    path = environment.get("PYTHONPATH", "").split(os.pathsep)
    if set(path) - OURS:  # plugins, or other code than this: nothing that was imported before may do
        command = [sys.executable, "-m", name, *command[1:]]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    jobs = _server_of_jobs() if name == "snakemake" and "--dry-run" not in command else None
    with tempfile.TemporaryDirectory() as place:
        files = [Path(place, "output"), Path(place, "errors")]
        process = _processes.Process(target=_become, args=(module, command, folder, dict(environment), files, jobs))
        process.start()
        process.join()
        output, errors = (file.read_text(encoding="utf-8") if file.exists() else "" for file in files)
    return Ended(command, process.exitcode, output, errors)


@cache
def _server_of_jobs() -> str:
    """The address of a process, started now, from which jobs of all runs are forked."""
    server = forkserver.ForkServer()
    server.set_forkserver_preload(list(IMPORTED_FOR_JOBS))
    server.ensure_running()
    return server._forkserver_address


def _write_to(files: list[Path]) -> None:
    for descriptor, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)


def _job(files: list[Path], *job: Any) -> None:
    """Be a job whose output goes where its Snakemake's does."""
    _write_to(files)
    forked_jobs._run(*job)


def _become(
    module: str, command: list[str], folder: Path, environment: dict[str, str], files: list[Path], jobs: str | None
) -> None:
    """Be that command, in the process that was forked, with the server of its jobs at the address."""
    _write_to(files)
    if jobs:
        forkserver._forkserver._forkserver_address = jobs
        forkserver._forkserver.ensure_running = lambda: None
        forked_jobs._run = partial(_job, files)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = command
    try:
        sys.exit(importlib.import_module(module).main())
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out

"""Our commands and Snakemake in processes of their own, forked from one that has their imports behind it.

A Snakemake that only says what it would do spends two of its three seconds on imports, a command most of its one. What
is forked is a process as any other, with its own folder, environment, output and exit code; the jobs that it starts are
interpreters of their own. What a person types, and `make`, is tested without this module.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OURS = {"", str(ROOT), str(ROOT / "scripts")}
Ended = subprocess.CompletedProcess[str]

_processes = multiprocessing.get_context("forkserver")
# nothing that reads the environment when it is imported, as huggingface_hub does
_processes.set_forkserver_preload(["snakemake.cli", "snakemake_executor_plugin_slurm", "bettersynth.runtime.job"])


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
    with tempfile.TemporaryDirectory() as place:
        files = [Path(place, "output"), Path(place, "errors")]
        process = _processes.Process(target=_become, args=(module, command, folder, dict(environment), files))
        process.start()
        process.join()
        output, errors = (file.read_text(encoding="utf-8") if file.exists() else "" for file in files)
    return Ended(command, process.exitcode, output, errors)


def _become(module: str, command: list[str], folder: Path, environment: dict[str, str], files: list[Path]) -> None:
    """Be that command, in the process that was forked."""
    for descriptor, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = command
    try:
        sys.exit(importlib.import_module(module).main())
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out

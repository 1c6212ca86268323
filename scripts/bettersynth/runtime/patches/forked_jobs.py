"""Jobs on this machine's processors, each forked from one process that has imported the libraries for all of them.

Python with torch and transformers takes five seconds to start, a job of the miniature often less. What is forked is a
process as any other, in Snakemake's process group, with its own environment, leases, log and exit code.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import multiprocessing
import os
import re
import runpy
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from bettersynth.runtime.patches.versions import made_for

THREADS = ("OMP", "GOTO", "OPENBLAS", "MKL", "VECLIB", "NUMEXPR")
"""Libraries that ask the environment how many threads to have, when they are imported."""

_processes = multiprocessing.get_context("forkserver")
_one_asks = threading.Lock()
"""Whoever starts a process asks for the ends of all, and an end can be read once."""


def fork_jobs(modules: Iterable[str]) -> None:
    """Have Snakemake fork its jobs' scripts from a process that has these modules imported.

    A job in an environment of its own (conda, a container, modules), or with several threads, starts its own Python: so
    does every job where that process does not come up.
    """
    made_for("snakemake")
    from snakemake.script import PythonScript

    preloaded = ["bettersynth.runtime.offline", "snakemake.cli", "bettersynth.runtime.job", *modules]
    _processes.set_forkserver_preload(preloaded)
    start = PythonScript.execute_script

    def execute_script(self: Any, fname: str, edit: bool = False) -> None:
        elsewhere = self.conda_env or self.container_img or self.env_modules or self.shadow_dir
        process = None if elsewhere or self.threads > 1 else _forked(fname, self.resources.get("tmpdir"))
        if process is None:
            start(self, fname, edit)
            return
        with _measured(process.pid, self.bench_record):
            wait([process.sentinel])
        with _one_asks:
            process.join()
        if process.exitcode:
            raise subprocess.CalledProcessError(process.exitcode, [sys.executable, fname])

    PythonScript.execute_script = execute_script


def imported_by(script: Path) -> list[str]:
    """The library's modules that a script of `scripts/` imports."""
    return re.findall(r"^from (bettersynth\.\S+) import", script.read_text(encoding="utf-8"), re.MULTILINE)


def _forked(script: str, scratch: str | None) -> Any:
    """A process that runs the script; None when none could be made."""
    environment = os.environ | {f"{library}_NUM_THREADS": "1" for library in THREADS}
    if scratch:
        environment |= dict.fromkeys(("TMPDIR", "TMP", "TEMPDIR", "TEMP"), scratch)
    process = _processes.Process(target=_run, args=(script, Path.cwd(), environment))
    try:
        with _one_asks:
            process.start()
    except (OSError, EOFError):
        return None
    return process


def _measured(process: int, record: Any) -> contextlib.AbstractContextManager[Any]:
    """What fills in the record of a rule with `benchmark:`, while the process runs."""
    if record is None:
        return contextlib.nullcontext()
    from snakemake.benchmark import benchmarked

    return benchmarked(process, record)


def _run(script: str, folder: Path, environment: dict[str, str]) -> None:
    """Be the script, in the process that was forked."""
    gc.freeze()  # libraries are a million objects, to be looked through no more
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    tempfile.tempdir = None
    sys.argv = [script]
    code = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit:
        raise
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out
    sys.exit(code)

"""What every script of `scripts/` does first: settings, logging, and a clear last word when it fails."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import os
import platform
import shutil
import signal
import sys
import traceback
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from bettersynth.configuration import configure
from bettersynth.core.commands import CONFIG_FILE, make
from bettersynth.core.layout import Layout
from bettersynth.core.own import own_folder
from bettersynth.runtime import gpus
from bettersynth.runtime.lease import WITHOUT_LINKS, HeldError, Lease
from bettersynth.runtime.network import forbid_network
from bettersynth.runtime.patches.environment import forget_ranks
from bettersynth.runtime.patches.model_code import close_standard_input, forbid_model_code
from bettersynth.workflow.jobs import Jobs
from bettersynth.workflow.manifest import check_needs, require
from bettersynth.workflow.plan import Plan


class RunningJob:
    """One Snakemake job in its own process: its configuration, the paths of its run and its wildcards.

    Make it before importing torch, transformers or Data-Juicer: they read the offline switches and the number of
    threads when they are imported.
    """

    def __init__(self, snakemake: Any) -> None:
        forbid_model_code()
        close_standard_input()
        forget_ranks()
        os.environ["OMP_NUM_THREADS"] = str(snakemake.threads)
        self.wildcards = snakemake.wildcards
        self.params = snakemake.params
        self.input = snakemake.input
        self.output = snakemake.output
        self.threads: int = snakemake.threads
        self.nodes: int = snakemake.resources.get("nodes", 1)
        self.configuration = configure(snakemake.config, "the configuration")
        self.config_file = os.environ.get(CONFIG_FILE, f"config/{self.configuration.name}.yaml")
        self.layout = Layout(Path("results") / str(self.configuration.name))
        self.plan = Plan(self.configuration)
        signal.signal(signal.SIGTERM, _terminated)
        log = Path(snakemake.log[0])
        try:
            Lease.acquire(self.layout.lease(log), log=str(log))
        except HeldError as error:
            wait = make("resume", config=self.config_file)
            sys.exit(f"Another job writes this already and nothing was touched: {error}.\nTo wait for it: {wait}")
        gpus.take(-(-snakemake.resources.get("gpu", 0) // self.nodes))
        _log_to(log)
        name = " ".join([f"rule {snakemake.rule}", *map(str, snakemake.wildcards)])
        forbid_network(name)
        # torch compiles into, and runs what lies in, a folder whose name others know
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(own_folder("compiled")))
        self._verify(snakemake.rule, name)

    def _verify(self, rule: str, name: str) -> None:
        """Compare the models that the job loads with what was staged; StagedError before anything is spent on it."""
        try:
            needs = Jobs(self.configuration, self.layout, self.plan).job(rule, dict(self.wildcards.items())).needs
        except KeyError:  # a rule of another Snakefile, as the tests have
            return
        require(check_needs(needs, self.configuration, self.config_file), name)


def _whereabouts() -> str:
    """The host, when the job began, and the SLURM job and GPUs that this process was given."""
    given = {name: os.environ.get(name) for name in ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES")}
    where = f"on {platform.node()} since {datetime.now().astimezone().isoformat(timespec='seconds')}"
    return " ".join([where, *(f"{name}={value}" for name, value in given.items() if value)])


def _terminated(*_: object) -> None:
    """On SIGTERM (a cancelled or preempted job, or one out of time) end in order, so that leases are given back."""
    _ends_badly()
    sys.exit(128 + signal.SIGTERM)


def _keep(log: Path) -> None:
    """Give the log a second name, `NAME.1.log` and on, that is taken away when the job ends well.

    Snakemake deletes a job's log before it starts the job again, and with it why the job had failed or how far it was.
    """
    for number in itertools.count(1):
        second = log.absolute().with_name(f"{log.stem}.{number}{log.suffix}")
        if second.exists():
            continue
        try:
            second.hardlink_to(log)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno not in WITHOUT_LINKS:
                raise
            _copied[second] = log.absolute()
        atexit.register(_drop, second)
        return


_copied: dict[Path, Path] = {}
"""On a disk without hard links: the second name of the log, which is a copy that is made when the job ends badly."""


def _drop(log: Path) -> None:
    log.unlink(missing_ok=True)


def _ends_badly() -> None:
    """The log keeps its second name."""
    atexit.unregister(_drop)
    for second, log in _copied.items():
        with contextlib.suppress(OSError):
            shutil.copyfile(log, second)


def _log_to(path: Path) -> None:
    """Send all that libraries print, native code included, to the log, and only our own lines to the terminal too.

    The log's first line says where the job ran.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w", encoding="utf-8", buffering=1)
    _keep(path)
    print(_whereabouts(), file=file)
    terminal = os.fdopen(os.dup(2), "w", encoding="utf-8", buffering=1)
    for descriptor in (1, 2):
        os.dup2(file.fileno(), descriptor)
    handlers = [logging.StreamHandler(stream) for stream in (file, terminal)]
    logging.basicConfig(level=logging.ERROR, format="%(message)s", handlers=handlers, force=True)
    logging.getLogger("bettersynth").setLevel(logging.INFO)

    def last_word(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        traceback.print_exception(kind, error, trace, file=file)
        _ends_badly()
        print(f"{kind.__name__}: {error}\nThe whole story is in {path} (on {platform.node()}).", file=terminal)

    sys.excepthook = last_word

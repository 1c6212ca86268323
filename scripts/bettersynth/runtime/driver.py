"""The Snakemake that runs a configuration: one at a time, and none beside the jobs of one that was killed.

A driver holds a lease while it runs (`results/<configuration>/driver.json`) that says where its log is and how it was
called. Jobs outlive a driver that is killed, in SLURM's queue or on its own machine. Started again, it would start them
a second time, and Snakemake would delete what they have written before a second job finds out that it must not run.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

from bettersynth.core import commands
from bettersynth.core.errors import PersonError
from bettersynth.core.publish import where_allowed, write_json
from bettersynth.runtime import lease
from bettersynth.slurm import queue

logger = logging.getLogger(__name__)

SPECIAL = frozenset(" \t\n\"'`$&|;<>()*?[]{}!#~\\")
"""Characters that a shell does not take for themselves."""


class DriverError(PersonError, RuntimeError):
    """This configuration must not be run now; the message says what to do."""


def check_path(python: str) -> None:
    """Raise DriverError when Snakemake's jobs could not start this Python: its path is given to a shell unquoted."""
    if special := sorted(set(python) & SPECIAL):
        raise DriverError(
            f"{python}: Snakemake starts jobs by a path without {' '.join(map(repr, special))}: "
            "move or clone this folder to such a path, and there: make setup"
        )


def check_folder(folder: Path) -> None:
    """Raise DriverError where Snakemake, even for a dry run, has to make a folder for its records and may not."""
    if not (folder / ".snakemake").exists() and not os.access(folder, os.W_OK):
        raise DriverError(f"{folder}: you may only read here, and nothing was run here: clone it to a place of yours")


def tell_progress() -> None:
    """Show, on the terminal, how far long readings of inputs are while the graph is built."""
    ours = logging.getLogger("bettersynth")
    ours.addHandler(logging.StreamHandler())
    ours.setLevel(logging.INFO)


def start(path: Path, log: str, folder: str, configs: Sequence[str | Path] = ()) -> lease.Lease:
    """Hold the lease `path` until this process ends. `log` is Snakemake's own, `folder` where it was called.

    `configs` are the configuration's files, however Snakemake was told of them.

    Raises DriverError while another driver lives, or while jobs of one that died are queued or at work.
    """
    before = last_driver(path, log)
    try:
        if before and not lease.is_live(path, before) and (jobs := left(path, Path(before["log"]))):
            raise DriverError(
                f"the run before was cut off, and jobs of it are still queued or running: {named(jobs)}\n"
                f"Wait for them and go on: {make('resume', before)}\n"
                f"Cancel them and go on:   {make('resume', before)} CANCEL=1"
            )
        called = {"command": list(sys.argv), "folder": folder, "configs": [str(config) for config in configs]}
        held = lease.Lease.acquire(path, log=log, **called)
        _began(path).touch()
        return held
    except lease.HeldError as error:
        watch = make("status", error.holder)
        raise DriverError(f"{path.parent} is being run already, {error}. To watch it: {watch}") from None
    except PermissionError as error:
        raise DriverError(f"{path.parent} cannot be written by you ({error}): you may have a dry run") from None
    except queue.SlurmError as error:
        raise DriverError(f"whether jobs of the run before are still queued is not known: {error}") from None


def claim(path: Path, config_file: str, named: bool) -> None:
    """Note in the file `path` of a results folder whose configuration it belongs to.

    Raises DriverError where it is another file's, and only for the two having one basename: not `named` by its `name:`.
    """
    before, mine = owner(path, config_file), _from_root(path, config_file)
    if before != mine and not named and (path.absolute().parents[2] / before).exists():
        raise DriverError(
            f"{path.parent} holds the results of {before}, and {mine} would go on with them, for both have the name "
            f"`{path.parent.name}`. Give one of them a name of its own, by a line such as: name: {path.parent.name}_2"
        )
    if before != mine or _claimed(path) is None:
        with where_allowed():
            write_json(path, {"file": str(mine)}, indent=None)


def owner(path: Path, config_file: str | Path) -> Path:
    """The configuration's file that the claim `path` of a results folder notes; `config_file` where there is none."""
    return _claimed(path) or _from_root(path, config_file)


def _claimed(path: Path) -> Path | None:
    """What a claim notes; None where there is none, or a power cut left it empty."""
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        return Path(json.loads(path.read_text(encoding="utf-8"))["file"])
    return None


def _from_root(path: Path, config_file: str | Path) -> Path:
    return Path(os.path.relpath(config_file, path.absolute().parents[2]))


def check_names(asking: Iterable[str], rules: Collection[str]) -> None:
    """Raise DriverError for a rule in `set-resources` that there is not, which Snakemake passes over."""
    from bettersynth.configuration.checks import did_you_mean  # setup imports this module, and has no package

    for name in set(asking) - set(rules):
        hint = did_you_mean(name, rules) or f"; there are: {', '.join(sorted(rules))}"
        raise DriverError(f"set-resources: there is no rule `{name}`{hint}")


def warn_of_triggers(triggers: Iterable[Any]) -> None:
    """Say so where `profiles/default` was not read, and a comment in a script would cost a GPU."""
    if any(trigger.name == "CODE" for trigger in triggers):
        logger.warning(
            "Finished jobs run again when a script changes, for profiles/default was not read: name other profiles by "
            "--profile; --workflow-profile takes its place"
        )


def tell_interrupt() -> None:
    """At Ctrl-C say that the same command goes on, before Snakemake ends its jobs."""

    def interrupted(number: int, frame: FrameType | None) -> None:
        print("\nStopping. What is finished stays; the same command goes on from here.", file=sys.stderr, flush=True)
        signal.default_int_handler(number, frame)

    with contextlib.suppress(ValueError):  # not the main thread, which alone is interrupted
        signal.signal(signal.SIGINT, interrupted)


def remember_failures() -> None:
    """Have Snakemake remember what a failed job left as unfinished, so that the next run makes it again.

    With `keep-incomplete`, Snakemake 9.27 records the outputs of a failed job as it does those of a finished one
    (`Job.postprocess` calls `persistence.finished` in both cases), and the next run would find nothing to be done.
    Without it, it would delete them at once, and with them what another job has just published: a job with an empty
    log never began, because another one holds its lease, and what lies there is the other one's.
    """
    from snakemake.jobs import Job

    finished = Job.postprocess

    @functools.wraps(finished)
    async def postprocess(self: Any, *, error: bool = False, **options: Any) -> None:
        await finished(self, error=error, **options)
        left = [path for path in self.output if Path(path).exists()] if error else []
        if left and all(_is_written(Path(log)) for log in self.log):
            self.dag.workflow.persistence.started(SimpleNamespace(output=left))

    Job.postprocess = postprocess


def allow_readers() -> None:
    """Let who may only read a folder have a dry run there, and say so of a run before Snakemake fails at its lock.

    Snakemake 9.27 keeps what a dry run saw (`save_iocache`) and drops it when a run begins (`drop_iocache`).
    """
    from snakemake.exceptions import WorkflowError
    from snakemake.persistence import PersistenceBase

    save, drop = PersistenceBase.save_iocache, PersistenceBase.drop_iocache

    def save_iocache(self: Any) -> None:
        with where_allowed():
            save(self)

    def drop_iocache(self: Any) -> None:
        if not os.access(self.path, os.W_OK):
            raise WorkflowError(f"{self.path} is another account's: you may have a dry run here, and no run")
        drop(self)

    PersistenceBase.save_iocache, PersistenceBase.drop_iocache = save_iocache, drop_iocache


def look_when_jobs_end(scheduler: Any) -> None:
    """Have Snakemake's scheduler choose among ready jobs when it starts and when a job ends, and at no other time.

    Snakemake 9.27 starts at most 100 jobs a second unless told otherwise, and therefore looks again a second after each
    look: every job that ends adds one look a second, for as long as any job is ready. On this machine cores limit the
    jobs, and a run of hundreds of them keeps a core busy.
    """
    scheduler.job_rate_limiter = None


def _is_written(log: Path) -> bool:
    """Whether a job wrote its log; Snakemake leaves an empty one. Opened, so that a network file system asks."""
    try:
        with log.open("rb") as file:
            return bool(file.read(1))
    except FileNotFoundError:
        return False


def _began(path: Path) -> Path:
    """A file that was touched when the last run of a configuration began; `path` is its driver's lease."""
    return path.with_name("began")


def is_of_an_earlier_run(path: Path, log: Path) -> bool:
    """Whether a job's log was last written before the last run began; the file server's clock tells."""
    began = _began(path)
    return began.exists() and log.stat().st_mtime < began.stat().st_mtime


def left(path: Path, log: Path) -> list[str]:
    """Jobs of the driver that wrote the log `log` which are in SLURM's queue, or hold a lease and live."""
    jobs = queue.queued(log)
    ids = {job.id for job in jobs}
    others = [holder for holder in _holders(path) if holder.get("slurm_job") not in ids]
    return [f"SLURM job {job.id}" for job in jobs] + [f"process {held['pid']} on {held['host']}" for held in others]


def named(jobs: list[str]) -> str:
    """The first of so many jobs, for a message."""
    return ", ".join(jobs[:10]) + (f" and {len(jobs) - 10} more" if len(jobs) > 10 else "")


def cancel(path: Path, log: Path) -> None:
    """Ask the jobs that a driver left to end: those in SLURM's queue, and processes of this machine."""
    if jobs := queue.queued(log):
        queue.cancel(jobs)
    for holder in filter(lease.is_local, _holders(path)):
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended, or is another person's
            os.kill(holder["pid"], signal.SIGTERM)


def until_gone(path: Path, log: Path, every: float = 5.0) -> Iterator[list[str]]:
    """Jobs that a driver left, whenever their number changes, until there is none."""
    last = -1
    while jobs := left(path, log):
        if len(jobs) != last:
            yield jobs
        last = len(jobs)
        time.sleep(every)


def _holders(path: Path) -> list[dict[str, Any]]:
    return lease.live(path.parent / "leases")


def cut_off(path: Path) -> dict[str, Any] | None:
    """The driver that died without ending in order; None when there is none.

    Of one whose lease a power cut left empty its log and folder are known, and not how it was called (`command`).
    Raises DriverError while a driver lives.
    """
    holder = last_driver(path)
    if holder and lease.is_live(path, holder):
        raise DriverError(_at_work(path, holder))
    return holder


def last_driver(path: Path, log: str = "") -> dict[str, Any] | None:
    """What the lease `path` says; of one that says nothing any more, the last log in its folder that is not `log`."""
    holder = lease.read(path)
    if holder != lease.LOST:
        return holder
    folder = path.absolute().parents[2]
    logs = sorted(found for found in (folder / ".snakemake" / "log").glob("*.log") if found.name != Path(log).name)
    return {"place": "", "log": str(logs[-1]) if logs else os.devnull, "folder": str(folder)}


def hint(path: Path) -> str:
    """What to know of an earlier driver before Snakemake refuses by its own lock; empty when there is none."""
    holder = last_driver(path)
    if holder is None:
        return ""
    if not lease.seems_live(path, holder):
        resume = make("resume", holder)
        return f"The run before was cut off (its log: {holder['log']}). To go on where it stopped: {resume}"
    return _at_work(path, holder)


def make(target: str, holder: dict[str, Any]) -> str:
    """The make command for the configuration that a driver runs; by the first of its files where there are several."""
    return commands.make(target, config=next(iter(configs_of(holder)), None))


def configs_of(holder: dict[str, Any]) -> list[str]:
    """The configuration's files that a driver was called with; of a driver of an earlier version, by its words."""
    words = holder.get("command", [])
    given = words[words.index("--configfile") + 1 :][:1] if "--configfile" in words else []
    return holder.get("configs") or given


def of_configuration(config_file: Path) -> Path | None:
    """The lease of a driver that was called with a configuration's file, be its results under another name."""
    for path in sorted(Path("results").glob("*/driver.json")):
        configs = map(Path, configs_of(lease.read(path) or {}))
        if any(config.exists() and config.samefile(config_file) for config in configs):
            return path
    return None


def _at_work(path: Path, holder: dict[str, Any]) -> str:
    return f"{path.parent} is being run, {lease.HeldError(path, holder)}. To watch it: {make('status', holder)}"

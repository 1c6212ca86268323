"""The Snakemake that runs a configuration: one at a time, and none beside the jobs of one that was killed.

A driver holds a lease while it runs (`results/<configuration>/driver.json`) that says where its log is and how it was
called. SLURM's jobs outlive a driver that is killed; started again, it would submit them a second time.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bettersynth import lease
from bettersynth.slurm import queue


class DriverError(RuntimeError):
    """This configuration must not be run now; the message says what to do."""


def start(path: Path, log: str, folder: str) -> lease.Lease:
    """Hold the lease `path` until this process ends. `log` is Snakemake's own, `folder` where it was called.

    Raises DriverError while another driver lives, or while jobs of one that died are in SLURM's queue.
    """
    before = lease.read(path)
    try:
        if before and not lease.is_live(path, before) and (jobs := queue.queued(Path(before["log"]))):
            raise DriverError(
                f"{len(jobs)} jobs of the run before, which was cut off, are still queued or running in SLURM: "
                f"{', '.join(job.id for job in jobs[:10])}{' …' if len(jobs) > 10 else ''}\n"
                f"Wait for them and go on: make resume\nCancel them and go on:   make resume CANCEL=1"
            )
        return lease.Lease.acquire(path, log=log, command=list(sys.argv), folder=folder)
    except lease.HeldError as error:
        raise DriverError(f"{path.parent} is being run already, {error}. Wait for it: make status") from None
    except queue.SlurmError as error:
        raise DriverError(f"whether jobs of the run before are still queued is not known: {error}") from None


def cut_off(path: Path) -> dict[str, Any] | None:
    """The driver that died without ending in order; None when there is none.

    Raises DriverError while a driver lives.
    """
    holder = lease.read(path)
    if holder and lease.is_live(path, holder):
        raise DriverError(f"{path.parent} is being run, {lease.HeldError(path, holder)}. To watch it: make status")
    return holder


def hint(path: Path) -> str:
    """What to know of an earlier driver before Snakemake refuses by its own lock; empty when there is none."""
    holder = lease.read(path)
    if holder is None:
        return ""
    if not lease.seems_live(path, holder):
        return f"The run before was cut off (its log: {holder['log']}). To go on where it stopped: make resume"
    return f"{path.parent} is being run, {lease.HeldError(path, holder)}. To watch it: make status"

"""Which jobs of a Snakemake run are in SLURM's queue.

Snakemake's plugin names every job after the run (`SLURM run ID`, in Snakemake's log) and puts rule and wildcards into
its comment.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from bettersynth.core.errors import PersonError

RUN_ID = re.compile(r"^SLURM run ID: (\S+)$", re.MULTILINE)


class SlurmError(PersonError, RuntimeError):
    """SLURM did not answer; the message is its own."""


class QueuedJob(NamedTuple):
    """A job that SLURM has not finished."""

    id: str
    state: str
    """Such as `PENDING` or `RUNNING`."""
    elapsed: str
    reason: str
    """Why it waits, or the nodes it runs on."""
    comment: str
    """`rule_<rule>` or `rule_<rule>_wildcards_<values>`."""


def run_ids(log: Path) -> list[str]:
    """SLURM run IDs in a log of Snakemake; none for a run without SLURM, or when the log is gone."""
    return RUN_ID.findall(log.read_text(encoding="utf-8", errors="replace")) if log.exists() else []


def queued(log: Path) -> list[QueuedJob]:
    """Jobs of the run that wrote the log `log` of Snakemake which are still queued or running."""
    names = run_ids(log)
    if not names:
        return []
    if shutil.which("squeue") is None:
        raise SlurmError(
            f"{log} belongs to a run on SLURM, and there is no squeue here; go to the cluster's login node"
        )
    lines = slurm("squeue", "--noheader", f"--name={','.join(names)}", "--format=%i|%T|%M|%R|%k").splitlines()
    return [QueuedJob(*line.split("|", 4)) for line in lines]


def cancel(jobs: list[QueuedJob]) -> None:
    """Ask SLURM to end jobs; they leave the queue a little later."""
    slurm("scancel", *(job.id for job in jobs))


def slurm(*command: str) -> str:
    """What a command of SLURM prints. Raises SlurmError with what it says when it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]} did not answer within a minute") from None
    except subprocess.CalledProcessError as error:
        raise SlurmError(f"{command[0]}: {error.stderr.strip()}") from None

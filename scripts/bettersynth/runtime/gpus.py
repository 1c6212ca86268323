"""One workstation, or one allocation, with several GPUs: each job gets its own.

On a cluster SLURM says which GPUs a job may use; inside one of its jobs, as on a workstation, jobs of Snakemake's local
executor share them out by locking one file for each GPU. A job that Snakemake submitted has its own, and no rivals. The
kernel gives the locks of a process back when it ends, however it ends. Imports no torch, which reads
CUDA_VISIBLE_DEVICES once.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from pathlib import Path
from typing import TextIO

from bettersynth.core.own import own_folder

NVIDIA = Path("/proc/driver/nvidia/gpus")
_held: list[TextIO] = []


def visible() -> list[str]:
    """GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; those of NVIDIA's driver without it."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    return [str(number) for number in range(len(list(NVIDIA.glob("*"))))]


def take(count: int, every: float = 2.0) -> None:
    """Keep so many GPUs of this node for this process until it ends; waits until they are free.

    Does nothing where there are no two GPUs to choose from. Raises ValueError when there are fewer than `count`.
    """
    there = visible()
    if not count or len(there) < 2:
        return
    if count > len(there):
        raise ValueError(f"the job asks for {count} GPUs and there are {len(there)}: change `gpu` in `set-resources`")
    waiting = False
    while (locks := _lock(there, count)) is None:
        if not waiting:
            print(f"Waiting for {count} of {len(there)} GPUs.", file=sys.stderr, flush=True)
        waiting = True
        time.sleep(every)
    _held.extend(locks.values())
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(locks)


def _lock(names: list[str], count: int) -> dict[str, TextIO] | None:
    """Locks of the first `count` free GPUs; None, and none locked, when fewer are free."""
    folder = own_folder("gpus")
    locks: dict[str, TextIO] = {}
    # two jobs of SLURM may call different GPUs by one name
    allocation = [os.environ["SLURM_JOB_ID"]] if "SLURM_JOB_ID" in os.environ else []
    for name in names:
        file = (folder / "-".join([*allocation, name])).open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        locks[name] = file
        if len(locks) == count:
            return locks
    for lock in locks.values():
        lock.close()
    return None

"""A GPU of its own for each job of a machine with several."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

_held: list[IO[str]] = []
"""Locks of this process; the system lets go of them when it ends, however it ends."""


def claim_gpu() -> str | None:
    """Let this process see one GPU that no other job of this user has claimed; returns its number or id.

    Call it before CUDA is used. Nothing is done where at most one GPU is visible, as under SLURM. When all are claimed,
    one is shared.
    """
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    if len(gpus) < 2:
        return None
    free = (gpu for gpu in gpus if _lock(gpu))
    claimed = next(free, gpus[os.getpid() % len(gpus)])
    os.environ["CUDA_VISIBLE_DEVICES"] = claimed
    return claimed


def _lock(gpu: str) -> bool:
    path = Path(tempfile.gettempdir()) / f"bettersynth-{os.getuid()}-gpu-{gpu}.lock"
    file = path.open("w", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    _held.append(file)
    return True

"""torch: what worker processes make arrives, or the job ends with a reason.

torch hands a tensor over in /dev/shm, its file's descriptor through a socket in the temporary folder. Where /dev/shm is
full (containers have 64 MB) or the socket's path too long (TMPDIR of more than 75 characters), the error came up in a
thread of the worker, and the job waited for the batch for ever. Here such a tensor goes through the worker's pipe.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from torch.multiprocessing.reductions import reduce_storage
from torch.utils.data import DataLoader

from bettersynth.core.errors import PersonError
from bettersynth.runtime.patches.versions import made_for

logger = logging.getLogger(__name__)

PATIENCE_S = 30 * 60
"""How long a job waits for a batch: the slowest file servers take less."""


class SilentWorkersError(PersonError, RuntimeError):
    """No batch came for so long that none will."""


def hand_over_anyhow() -> None:
    """From now on, in this process and those that it forks; to be called before worker processes are started."""
    made_for("torch")
    ForkingPickler.register(torch.UntypedStorage, _reduced)


def _reduced(storage: torch.UntypedStorage) -> tuple[Any, ...]:
    try:
        return reduce_storage(storage)
    except (OSError, RuntimeError) as error:
        _say(str(error))
        return _rebuilt, (torch.empty(0, dtype=torch.uint8).set_(storage).numpy(),)


def _rebuilt(bytes_: np.ndarray) -> torch.UntypedStorage:
    return torch.from_numpy(bytes_).untyped_storage()


@cache
def _say(error: str) -> None:
    logger.warning(
        "a worker process cannot share memory (%s): batches go through a pipe, which is slower. Give the job a larger "
        "/dev/shm (a container: --shm-size=8g), or a TMPDIR of at most 75 characters",
        error,
    )


@contextmanager
def patience(what: str, workers: int) -> Iterator[None]:
    """Raise SilentWorkersError where a DataLoader that was given `PATIENCE_S` as its `timeout` has waited so long."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader timed out" not in str(error):
            raise
        raise SilentWorkersError(silence(what, workers)) from None


def waited(loader: DataLoader, what: str) -> Iterator[Any]:
    """What a loader gives, with `patience`."""
    with patience(what, loader.num_workers):
        yield from loader


def silence(what: str, workers: int) -> str:
    """The message of a job whose worker processes made nothing for `PATIENCE_S`."""
    return (
        f"{what}: none of {workers} worker processes handed anything over for {PATIENCE_S / 60:g} minutes. A file "
        "server that does not answer is the usual reason; when it does again, run again: what is done stays. With "
        "`workers: 0` the job opens pictures itself"
    )

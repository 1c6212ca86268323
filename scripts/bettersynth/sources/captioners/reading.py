"""Images opened and made into a model's inputs by other processes, a few groups ahead of the model."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from PIL.Image import new as new_image

from bettersynth.configuration.pool import Reading
from bettersynth.operators.batched.pinned import PinnedSlots
from bettersynth.pool.images import ImageProblem, ImageReason, open_image
from bettersynth.runtime.patches.torch_workers import PATIENCE_S, SilentWorkersError, silence
from bettersynth.sources.base import GeneratorError
from bettersynth.sources.captioners.families import Family, Inputs

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1  # of Linux's <sys/prctl.h>
AHEAD = 1
"""Groups that wait for each process, beside the one that it is at."""
SLOT = 64 * 3 * 336 * 336 * 2
"""Bytes for a group's inputs on their way to a GPU: larger ones (images in many tiles) go through a pipe."""


class Request(NamedTuple):
    """An image that wants captions."""

    key: str
    """What its random numbers are drawn from."""
    place: int
    """Its record's place."""
    number: int
    """Its place in the record."""
    file: Path


class Group(NamedTuple):
    """Images that the model sees together. `inputs` is filled up to the group's size with its last image."""

    requests: list[Request]
    inputs: Inputs | None
    damaged: list[tuple[Request, ImageReason]]


def open_request(request: Request, reading: Reading) -> Image | ImageReason:
    """The image, or why it cannot be opened. Raises GeneratorError for one that is missing."""
    try:
        return open_image(request.file, reading)
    except ImageProblem as problem:
        if problem.reason == ImageReason.MISSING:
            raise GeneratorError(f"record {request.key}: {problem}; bring it back and run again") from None
        return problem.reason


def refused(request: Request, error: Exception) -> ImageReason:
    """What becomes of an image that a model's own processing raises for, with a word in the log."""
    logger.warning("record %s: %s: %s: %s", request.key, ImageReason.REFUSED, type(error).__name__, error)
    return ImageReason.REFUSED


ORDINARY = new_image("RGB", (64, 48), "grey")
"""An image that every model can take: when one raises for this too, the fault is no image's."""


class Reader:
    """Opens groups of images; makes no use of the model's weights."""

    def __init__(self, family: Family, size: int, reading: Reading) -> None:
        self.family = family
        self.size = size
        self.reading = reading

    def read(self, requests: Sequence[Request]) -> Group:
        """The group with what the model takes for it. Raises GeneratorError for an image that is missing.

        Of the images themselves only one is in memory at a time.
        """
        whole: list[Request] = []
        damaged: list[tuple[Request, ImageReason]] = []
        several: list[Inputs] = []
        for request in requests:
            inputs = self._inputs(request)
            if isinstance(inputs, ImageReason):
                damaged.append((request, inputs))
            else:
                whole.append(request)
                several.append(inputs)
        if not whole:
            return Group(whole, None, damaged)
        several += [several[-1]] * (self.size - len(several))
        return Group(whole, self.family.joined(several), damaged)

    def _inputs(self, request: Request) -> Inputs | ImageReason:
        image = open_request(request, self.reading)
        if isinstance(image, ImageReason):
            return image
        try:
            return self.family.inputs_of(image)
        except Exception as error:  # a processor has no list of what it raises
            self.family.inputs_of(ORDINARY)
            return refused(request, error)


def read_groups(reader: Reader, groups: Sequence[Sequence[Request]], workers: int) -> Iterator[Group]:
    """The groups in order, opened by `workers` processes (in this one, when there are none or there is one group).

    The processes are forked before the model is loaded. What they send to a GPU lies in memory that they share with
    this process; all else goes through pipes, because /dev/shm has a few megabytes in many a container.
    """
    if not workers or len(groups) < 2:
        yield from map(reader.read, groups)
        return
    under_way = min((1 + AHEAD) * workers, len(groups))
    slots = PinnedSlots(under_way + 1, SLOT) if reader.family.device == "cuda" else None
    with ProcessPoolExecutor(
        min(workers, len(groups)), multiprocessing.get_context("fork"), _initialise, (reader, slots)
    ) as pool:
        try:
            waiting: deque[Future[_Packed]] = deque()
            for group in groups:
                waiting.append(pool.submit(_read, group, slots.take() if slots else None))
                if len(waiting) > under_way - 1:
                    yield _unpacked(waiting.popleft().result(PATIENCE_S), slots, reader.family.device)
            while waiting:
                yield _unpacked(waiting.popleft().result(PATIENCE_S), slots, reader.family.device)
        except TimeoutError:
            for process in multiprocessing.active_children():  # or the pool would wait for them
                process.kill()
            raise SilentWorkersError(silence("captions", workers)) from None
        finally:
            pool.shutdown(cancel_futures=True)


class _Placed(NamedTuple):
    """A tensor in a slot."""

    offset: int
    shape: torch.Size
    dtype: torch.dtype


class _Packed(NamedTuple):
    group: Group
    arrays: dict[str, tuple[np.ndarray, torch.dtype]]
    """The inputs, where they go through the pipe."""
    slot: int | None
    placed: dict[str, _Placed]
    """The inputs that lie in the slot."""


_reader: Reader
_slots: PinnedSlots | None


def _initialise(reader: Reader, slots: PinnedSlots | None) -> None:
    global _reader, _slots
    _reader, _slots = reader, slots
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # or it would outlive a job that is killed
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _read(requests: Sequence[Request], slot: int | None) -> _Packed:
    group = _reader.read(requests)
    tensors = group.inputs or {}
    group = group._replace(inputs=None)
    if _slots is not None and slot is not None and sum(map(_aligned, tensors.values())) <= _slots.size:
        return _Packed(group, {}, slot, _place(tensors, _slots.memory(slot)))
    return _Packed(group, {name: (_bits(tensor).numpy(), tensor.dtype) for name, tensor in tensors.items()}, slot, {})


def _place(tensors: Inputs, memory: torch.Tensor) -> dict[str, _Placed]:
    placed, offset = {}, 0
    for name, tensor in tensors.items():
        memory[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor)
        placed[name] = _Placed(offset, tensor.shape, tensor.dtype)
        offset += _aligned(tensor)
    return placed


def _aligned(tensor: torch.Tensor) -> int:
    """The tensor's bytes, up to where the next one may begin."""
    return -(-tensor.nbytes // 64) * 64


def _unpacked(packed: _Packed, slots: PinnedSlots | None, device: str) -> Group:
    inputs = {name: torch.from_numpy(array).view(dtype) for name, (array, dtype) in packed.arrays.items()}
    if slots is not None and packed.slot is not None:
        used = max((one.offset + one.shape.numel() * one.dtype.itemsize for one in packed.placed.values()), default=0)
        uploaded = slots.upload(packed.slot, used, torch.device(device))
        for name, (offset, shape, dtype) in packed.placed.items():
            inputs[name] = uploaded[offset : offset + shape.numel() * dtype.itemsize].view(dtype).view(shape)
    return packed.group._replace(inputs=inputs or None)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as NumPy can hold it, which has no bfloat16."""
    return tensor.contiguous().view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor.contiguous()

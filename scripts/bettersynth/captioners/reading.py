"""Images opened and made into a model's inputs by other processes, a few groups ahead of the model."""

from __future__ import annotations

import ctypes
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

from bettersynth.captioners.families import Family, Inputs
from bettersynth.generators import GeneratorError
from bettersynth.images import ImageProblem, ImageReason, open_image

PR_SET_PDEATHSIG = 1  # of Linux's <sys/prctl.h>
AHEAD = 2
"""Groups that are ready or under way for each process."""


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


class Reader:
    """Opens groups of images; makes no use of the model's weights."""

    def __init__(self, family: Family, size: int, max_pixels: int) -> None:
        self.family = family
        self.size = size
        self.max_pixels = max_pixels

    def read(self, requests: Sequence[Request]) -> Group:
        """The group with what the model takes for it. Raises GeneratorError for an image that is missing."""
        whole, images = [], []
        damaged: list[tuple[Request, ImageReason]] = []
        for request in requests:
            try:
                images.append(open_image(request.file, self.max_pixels))
                whole.append(request)
            except ImageProblem as problem:
                if problem.reason == ImageReason.MISSING:
                    raise GeneratorError(f"record {request.key}: {problem}; bring it back and run again") from None
                damaged.append((request, problem.reason))
        if not whole:
            return Group(whole, None, damaged)
        images += [images[-1]] * (self.size - len(images))
        return Group(whole, self.family.inputs(images), damaged)


def read_groups(reader: Reader, groups: Sequence[Sequence[Request]], workers: int) -> Iterator[Group]:
    """The groups in order, opened by `workers` processes (in this one, when there are none or there is one group).

    The processes are forked before the model is loaded. What they send goes through pipes: shared memory is a few
    megabytes in many a container.
    """
    if not workers or len(groups) < 2:
        yield from map(reader.read, groups)
        return
    with ProcessPoolExecutor(
        min(workers, len(groups)), multiprocessing.get_context("fork"), _initialise, (reader,)
    ) as pool:
        try:
            waiting: deque[Future[_Packed]] = deque()
            for group in groups:
                waiting.append(pool.submit(_read, group))
                if len(waiting) > AHEAD * workers:
                    yield _unpacked(waiting.popleft().result())
            while waiting:
                yield _unpacked(waiting.popleft().result())
        finally:
            pool.shutdown(cancel_futures=True)


class _Packed(NamedTuple):
    group: Group
    arrays: dict[str, tuple[np.ndarray, torch.dtype]]


_reader: Reader


def _initialise(reader: Reader) -> None:
    global _reader
    _reader = reader
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # or it would outlive a job that is killed
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _read(requests: Sequence[Request]) -> _Packed:
    group = _reader.read(requests)
    tensors = group.inputs or {}
    return _Packed(
        group._replace(inputs=None),
        {name: (_bits(tensor).numpy(), tensor.dtype) for name, tensor in tensors.items()},
    )


def _unpacked(packed: _Packed) -> Group:
    if not packed.arrays:
        return packed.group
    inputs = {name: torch.from_numpy(array).view(dtype) for name, (array, dtype) in packed.arrays.items()}
    return packed.group._replace(inputs=inputs)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as NumPy can hold it, which has no bfloat16."""
    return tensor.contiguous().view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor.contiguous()

"""Where and in which precision a generator's model computes, and what becomes of a batch that does not fit there."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from bettersynth.configuration.section import Precision

logger = logging.getLogger(__name__)

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def default_device() -> str:
    """`cuda` where there is a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def model_dtype(precision: Precision, device: str) -> torch.dtype:
    """The configured precision on a GPU; a CPU computes in fp32, which it is fastest in."""
    return DTYPES[precision] if device == "cuda" else torch.float32


def attention_of_many_shapes() -> AbstractContextManager[None]:
    """Within it, attention does not take cuDNN's kernels, which PyTorch prefers on recent GPUs.

    They are planned anew, for about 80 ms of CPU, for each shape that a thread has not met; texts have many lengths.
    """
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])


class DoesNotFitError(RuntimeError):
    """One record alone needs more memory than the GPU has; the message names it."""


class BatchSize:
    """How many images are worked on at one time: halved, for good, when they do not fit into the GPU's memory."""

    def __init__(self, size: int) -> None:
        self.size = size

    def halve(self, key: str) -> None:
        """Go on with half as many; raises DoesNotFitError, with the record's `key`, when it was one already."""
        if self.size == 1:
            raise DoesNotFitError(
                f"record {key}: one image does not fit into the GPU's memory; take a smaller model, a lower precision "
                "or fewer new tokens, or a GPU with more memory"
            )
        self.size //= 2
        torch.cuda.empty_cache()
        logger.warning("out of GPU memory with %d images: going on with %d", 2 * self.size, self.size)

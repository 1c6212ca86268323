"""Half precision for the body of a model, fp32 for what decides: norms of features, heads, softmax."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

Precision = torch.dtype
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def chosen(precision: str, device: torch.device) -> torch.dtype:
    """The type of the body's numbers: what the configuration says; for `auto`, fp32 on a CPU and fp16 on a GPU.

    fp16 rather than bf16: the models were published in it, and its three further bits keep scores within 1e-3.
    """
    if precision == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return DTYPES[precision]


def cast(model: nn.Module, dtype: torch.dtype, heads: list[nn.Module]) -> None:
    """Store the model's weights in `dtype`, but those of `heads` in fp32; a head takes its inputs to fp32."""
    if dtype == torch.float32:
        torch.backends.cudnn.allow_tf32 = False  # PyTorch lets convolutions, and these alone, round their inputs
        return
    model.to(dtype)
    for head in heads:
        head.float().register_forward_pre_hook(_to_fp32)


def _to_fp32(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value for value in inputs
    )

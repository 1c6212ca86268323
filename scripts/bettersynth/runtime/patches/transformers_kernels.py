"""The same numbers by faster kernels, in models of transformers.

- BLIP and OWL-ViT have the eager attention only, which writes all scores to memory, 577 × 577 for each head of BLIP's
  picture encoder; PyTorch's fused attention does not.
- Cutting an image into patches by a convolution in half precision runs a slow kernel; the same product as a matrix is
  as fast as others.
- CLIP's activation x·σ(1.702·x) takes three kernels; SiLU, x·σ(x), takes one when the factor is moved into the weights
  around it.

All three change no more than the order of sums and the last bit of a weight.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.activations import QuickGELUActivation
from transformers.models.blip.modeling_blip import BlipAttention
from transformers.models.owlvit.modeling_owlvit import OwlViTAttention

from bettersynth.runtime.patches.versions import made_for

QUICK = 1.702
"""Factor of CLIP's activation (`QuickGELUActivation`)."""


def speed_up(model: nn.Module, dtype: torch.dtype) -> None:
    """Replace attention, patch cutting and CLIP's activation where the model has them, in place.

    A model that computes in fp32 keeps its convolution: another order of its sums moved a score by 2e-5.
    """
    made_for("transformers")
    for module in model.modules():
        if isinstance(module, BlipAttention):
            module.forward = MethodType(_blip, module)  # type: ignore[method-assign]
        elif isinstance(module, OwlViTAttention):
            module.forward = MethodType(_owlvit, module)  # type: ignore[method-assign]
        elif dtype != torch.float32 and isinstance(module, nn.Conv2d) and _cuts_patches(module):
            module.forward = MethodType(_patches, module)  # type: ignore[method-assign]
        elif isinstance(getattr(module, "activation_fn", None), QuickGELUActivation):
            _move_factor(module)


def _cuts_patches(module: nn.Conv2d) -> bool:
    plain = module.groups == 1 and module.padding in ((0, 0), "valid") and module.dilation == (1, 1)
    return plain and module.stride == module.kernel_size


def _patches(self: Any, pixels: torch.Tensor) -> torch.Tensor:
    """`Conv2d.forward` of a kernel as large as its stride; `[n, 3, height, width]` to `[n, width, rows, columns]`.

    Pixels come with their channels last in memory, and so they are multiplied: what is copied are long runs.
    """
    high, wide = self.kernel_size
    images, channels, height, width = pixels.shape
    rows, columns = height // high, width // wide
    inside = pixels[:, :, : rows * high, : columns * wide].permute(0, 2, 3, 1)
    patches = inside.reshape(images, rows, high, columns, wide, channels).transpose(2, 3)
    flat = patches.reshape(images, rows, columns, high * wide * channels)
    weight = self.weight.permute(0, 2, 3, 1).flatten(1)
    return nn.functional.linear(flat, weight, self.bias).permute(0, 3, 1, 2)


@torch.no_grad()
def _move_factor(mlp: Any) -> None:
    """x·σ(1.702·x) = SiLU(1.702·x) / 1.702."""
    mlp.fc1.weight *= QUICK
    mlp.fc1.bias *= QUICK
    mlp.fc2.weight /= QUICK
    mlp.activation_fn = nn.SiLU()


def _blip(self: Any, hidden_states: torch.Tensor, **options: Any) -> tuple[torch.Tensor, None]:
    """`BlipAttention.forward` without head mask; `[batch, tokens, width]` in and out."""
    batch, tokens, width = hidden_states.shape
    mixed = self.qkv(hidden_states).view(batch, tokens, 3, self.num_heads, self.head_dim)
    query, key, value = mixed.permute(2, 0, 3, 1, 4)
    context = scaled_dot_product_attention(query, key, value, scale=self.scale)
    return self.projection(context.transpose(1, 2).reshape(batch, tokens, width)), None


def _owlvit(
    self: Any,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    causal_attention_mask: torch.Tensor | None = None,
    output_attentions: bool | None = False,
) -> tuple[torch.Tensor, None]:
    """`OwlViTAttention.forward`; `[batch, tokens, width]` in and out, masks are added to the scores."""
    batch, tokens, width = hidden_states.shape
    query, key, value = (
        projection(hidden_states).view(batch, tokens, self.num_heads, self.head_dim).transpose(1, 2)
        for projection in (self.q_proj, self.k_proj, self.v_proj)
    )
    masks = [mask for mask in (attention_mask, causal_attention_mask) if mask is not None]
    mask = torch.stack(torch.broadcast_tensors(*masks)).sum(0) if masks else None
    context = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=self.scale)
    return self.out_proj(context.transpose(1, 2).reshape(batch, tokens, width)), None

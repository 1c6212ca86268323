"""PyTorch's fused attention in models for which transformers 4.57 has the eager one only (BLIP, OWL-ViT).

The eager attention writes all scores to memory: 577 × 577 for each head of BLIP's picture encoder. The numbers are the
same up to the order of their sums.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.blip.modeling_blip import BlipAttention
from transformers.models.owlvit.modeling_owlvit import OwlViTAttention


def use_fused_attention(model: nn.Module) -> None:
    """Replace the attention of every BLIP picture layer and OWL-ViT layer of the model, in place."""
    for module in model.modules():
        if isinstance(module, BlipAttention):
            module.forward = MethodType(_blip, module)  # type: ignore[method-assign]
        elif isinstance(module, OwlViTAttention):
            module.forward = MethodType(_owlvit, module)  # type: ignore[method-assign]


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

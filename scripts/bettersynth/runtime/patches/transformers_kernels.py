"""The same numbers by faster kernels, in models of transformers.

- BLIP and OWL-ViT have the eager attention only, which writes all scores to memory, 577 × 577 for each head of BLIP's
  picture encoder; PyTorch's fused attention does not.
- Of the last layer of CLIP's and ViT's picture encoders and of BLIP's text encoder only the class token is read: of the
  other tokens it computes keys and values alone.
- Cutting an image into patches by a convolution in half precision runs a slow kernel; the same product as a matrix is
  as fast as others.
- CLIP's activation x·σ(1.702·x) takes three kernels; SiLU, x·σ(x), takes one when the factor is moved into the weights
  around it.

They change no more than the order of sums and the last bit of a weight.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.activations import QuickGELUActivation
from transformers.models.blip.modeling_blip import BlipAttention
from transformers.models.blip.modeling_blip_text import BlipTextEncoder, BlipTextSelfAttention
from transformers.models.clip.modeling_clip import CLIPVisionTransformer
from transformers.models.owlvit.modeling_owlvit import OwlViTAttention
from transformers.models.vit.modeling_vit import ViTEncoder

from bettersynth.runtime.patches.versions import made_for

QUICK = 1.702
"""Factor of CLIP's activation (`QuickGELUActivation`)."""


def speed_up(model: nn.Module, dtype: torch.dtype) -> None:
    """Replace attention, last layers, patch cutting and CLIP's activation where the model has them, in place.

    The models are read by their class token. One that computes in fp32 keeps its convolution: another order of its
    sums moved a score by 2e-5.
    """
    made_for("transformers")
    for module in model.modules():
        if isinstance(module, BlipAttention):
            module.forward = MethodType(_blip, module)  # type: ignore[method-assign]
        elif isinstance(module, BlipTextSelfAttention) and module.position_embedding_type == "absolute":
            module.forward = MethodType(_blip_text, module)  # type: ignore[method-assign]
        elif isinstance(module, OwlViTAttention):
            module.forward = MethodType(_owlvit, module)  # type: ignore[method-assign]
        elif dtype != torch.float32 and isinstance(module, nn.Conv2d) and _cuts_patches(module):
            module.forward = MethodType(_patches, module)  # type: ignore[method-assign]
        elif isinstance(getattr(module, "activation_fn", None), QuickGELUActivation):
            _move_factor(module)
        for kind, (layers, forward) in LAST_LAYERS.items():
            if isinstance(module, kind):
                last = attrgetter(layers)(module)[-1]
                last.forward = MethodType(forward, last)


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


def _blip_text(
    self: Any,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    encoder_hidden_states: torch.Tensor | None = None,
    encoder_attention_mask: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """`BlipTextSelfAttention.forward` without cache and head mask, of the text or across to the picture."""
    if encoder_hidden_states is None:
        return _attended(self, hidden_states, hidden_states, attention_mask), None
    return _attended(self, hidden_states, encoder_hidden_states, encoder_attention_mask), None


def _attended(
    attention: Any, queries: torch.Tensor, states: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """What tokens `queries` `[batch, tokens, width]` gather from `states`, by BLIP's or ViT's projections."""
    batch, tokens, _ = queries.shape
    shape = (batch, -1, attention.num_attention_heads, attention.attention_head_size)
    query, key, value = (
        projection(of).view(shape).transpose(1, 2)
        for projection, of in ((attention.query, queries), (attention.key, states), (attention.value, states))
    )
    context = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return context.transpose(1, 2).reshape(batch, tokens, -1)


# --- last layers of which the class token is read: `[batch, tokens, width]` to `[batch, 1, width]` ----


def _clip_class_token(self: Any, hidden_states: torch.Tensor, *masks: None, **options: Any) -> tuple[torch.Tensor]:
    """`CLIPEncoderLayer.forward` of a picture, which has no mask."""
    attention, normed = self.self_attn, self.layer_norm1(hidden_states)
    shape = (len(normed), -1, attention.num_heads, attention.head_dim)
    query, key, value = (
        projection(of).view(shape).transpose(1, 2)
        for projection, of in (
            (attention.q_proj, normed[:, :1]),
            (attention.k_proj, normed),
            (attention.v_proj, normed),
        )
    )
    context = scaled_dot_product_attention(query, key, value, scale=attention.scale)
    hidden = hidden_states[:, :1] + attention.out_proj(context.transpose(1, 2).flatten(2))
    return (hidden + self.mlp(self.layer_norm2(hidden)),)


def _vit_class_token(self: Any, hidden_states: torch.Tensor, head_mask: None = None) -> torch.Tensor:
    """`ViTLayer.forward` without head mask."""
    normed, first = self.layernorm_before(hidden_states), hidden_states[:, :1]
    context = _attended(self.attention.attention, normed[:, :1], normed)
    hidden = self.attention.output(context, first) + first
    return self.output(self.intermediate(self.layernorm_after(hidden)), hidden)


def _blip_text_class_token(
    self: Any,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    head_mask: None = None,
    encoder_hidden_states: torch.Tensor | None = None,
    encoder_attention_mask: torch.Tensor | None = None,
    *unused: Any,
) -> tuple[torch.Tensor]:
    """`BlipTextLayer.forward` without cache and head mask."""
    first = hidden_states[:, :1]
    context = _attended(self.attention.self, first, hidden_states, attention_mask)
    hidden = self.attention.output(context, first)
    if encoder_hidden_states is not None:
        across = _attended(self.crossattention.self, hidden, encoder_hidden_states, encoder_attention_mask)
        hidden = self.crossattention.output(across, hidden)
    return (self.feed_forward_chunk(hidden),)


LAST_LAYERS: dict[type[nn.Module], tuple[str, Callable[..., Any]]] = {
    CLIPVisionTransformer: ("encoder.layers", _clip_class_token),
    ViTEncoder: ("layer", _vit_class_token),
    BlipTextEncoder: ("layer", _blip_text_class_token),
}
"""Encoder -> where its layers are, and the last one's forward."""

"""What the published MGM program computed at small size, to compare with: `golden/published_mgm.json`.

How the values were made: the model code of `dvlab-research/MGM` (commit 769820c, the one in the contest's kit) ran
under transformers 4.38.0, timm 0.9.16 and PyTorch 2.13 on a CPU in fp32 and evaluation mode: `MGMGemmaForCausalLM` with
a `CLIPVisionTower`, an `OpenCLIPVisionTower` around timm's `ConvNeXt`, `mlp2x_gelu` and its own
`initialize_uni_modules`, at the sizes of `LANGUAGE`, `CLIP` and `CONVNEXT`, every parameter filled by `fill` from its
published name (`lm_head` is tied to the embedding), with the sequences and images of each case. The file holds names
and shapes of all parameters as that program has them, and for each case input ids (the image as one -200), labels, the
length they are cut to, the loss and every row's logits.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "golden" / "published_mgm.json"

LANGUAGE = {
    "vocab_size": 24,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
CLIP = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
CONVNEXT = {"hidden_sizes": [4, 6, 8, 10], "depths": [1, 1, 2, 1]}
IMAGE_SIZE_AUX = 32


def golden() -> dict:
    """The file's contents."""
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def fill(name: str, shape: tuple[int, ...] | list[int]) -> torch.Tensor:
    """A parameter's values, from its name alone."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    return torch.from_numpy(0.3 * values).float()


def image(number: int) -> torch.Tensor:
    """A normalised image (3, 32, 32)."""
    return fill(f"image {number}", (3, IMAGE_SIZE_AUX, IMAGE_SIZE_AUX)) / 0.3


def published_state() -> dict[str, torch.Tensor]:
    """All parameters, under their published names."""
    return {name: fill(name, shape) for name, shape in golden()["shapes"].items()}

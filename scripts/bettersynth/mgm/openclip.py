"""OpenCLIP's ConvNeXt as transformers' ConvNeXt: the same weights under other names.

The kit's auxiliary tower is the image side of an OpenCLIP checkpoint, which timm's ConvNeXt holds. What follows the
stages there (norm and projection head) MGM does not use.
"""

from __future__ import annotations

import re
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor
from transformers import ConvNextConfig, ConvNextModel

from bettersynth.publish import publish_folder

TRUNK = "visual.trunk."
NAMES = (
    (r"stem\.0\.", "embeddings.patch_embeddings."),
    (r"stem\.1\.", "embeddings.layernorm."),
    (r"stages\.(\d+)\.downsample\.", r"encoder.stages.\1.downsampling_layer."),
    (r"stages\.(\d+)\.blocks\.", r"encoder.stages.\1.layers."),
    (r"\.conv_dw\.", ".dwconv."),
    (r"\.norm\.", ".layernorm."),
    (r"\.mlp\.fc", ".pwconv"),
    (r"\.gamma$", ".layer_scale_parameter"),
)
"""timm's names and transformers'."""


def convert_convnext(weights: str | Path, folder: str | Path, image_size: int) -> None:
    """Publish `folder` with the ConvNeXt of an OpenCLIP checkpoint, a safetensors file.

    Raises ValueError when the file does not hold a ConvNeXt, or other weights than one has.
    """
    tower = {_renamed(name): value for name, value in load_file(weights).items() if name.startswith(TRUNK)}
    if "embeddings.patch_embeddings.weight" not in tower:
        raise ValueError(f"{weights}: no ConvNeXt below `{TRUNK}`; an `open_clip_model.safetensors` has it")
    model = ConvNextModel(_config(tower, image_size))
    missing, unexpected = model.load_state_dict(tower, strict=False)
    missing = [name for name in missing if not name.startswith("layernorm.")]  # MGM ends at the last stage
    unexpected = [name for name in unexpected if not name.startswith("head.")]
    if missing or unexpected:
        raise ValueError(f"{weights}: weights missing {missing[:3]}, not known {unexpected[:3]}; no ConvNeXt of 2022")
    with publish_folder(folder) as temporary:
        model.save_pretrained(temporary)


def _renamed(name: str) -> str:
    name = name.removeprefix(TRUNK)
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _config(tower: dict[str, Tensor], image_size: int) -> ConvNextConfig:
    """Sizes as the weights have them."""
    layers = [re.match(r"encoder\.stages\.(\d+)\.layers\.(\d+)\.dwconv\.weight", name) for name in tower]
    places = [(int(found[1]), int(found[2])) for found in layers if found]
    stages = range(max(stage for stage, _ in places) + 1)
    return ConvNextConfig(
        num_channels=tower["embeddings.patch_embeddings.weight"].shape[1],
        patch_size=tower["embeddings.patch_embeddings.weight"].shape[-1],
        hidden_sizes=[len(tower[f"encoder.stages.{stage}.layers.0.dwconv.weight"]) for stage in stages],
        depths=[sum(place == stage for place, _ in places) for stage in stages],
        image_size=image_size,
    )

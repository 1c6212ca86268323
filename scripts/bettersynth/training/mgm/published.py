"""Weights under their published names, in and out: a whole MGM-2B, and OpenCLIP's ConvNeXt as a tower's folder.

The published MGM (dvlab-research/MGM) keeps Gemma, towers, projector and patch info mining side by side below `model.`;
its ConvNeXt has timm's names, which OpenCLIP's file has too, below `visual.trunk.`. Only safetensors are read, and of
pickles one, as tensors alone (PyTorch's `weights_only`): the `mm_projector.bin` that the kit's program just wrote.
"""

from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionConfig, ConvNextConfig, GemmaConfig

from bettersynth.core.publish import publish_folder, read_json, write_json
from bettersynth.runtime.patches.weights import WeightsError, check_weights, open_model
from bettersynth.training.mgm.model import Connector, ConvNextTower, MGMConfig, MGMForConditionalGeneration
from bettersynth.training.mgm.processing import Processor

CLIP_FOLDER = "model_zoo/OpenAI/clip-vit-large-patch14-336"
CONVNEXT_FOLDER = "model_zoo/OpenAI/openclip-convnext-large-d-320-laion2B-s29B-b131K-ft-soup"
"""Where the published program looks for its towers, from its own folder."""

INDEX = "model.safetensors.index.json"
BUFFERS = (r".*\.position_ids$", r".*\.inv_freq$")
"""What older versions of transformers wrote beside the weights."""

# Ours (as in transformers) and timm's, each a prefix of a parameter's name within the ConvNeXt.
_CONVNEXT = [
    (r"embeddings\.patch_embeddings\.", "stem.0."),
    (r"embeddings\.layernorm\.", "stem.1."),
    (r"encoder\.stages\.(\d+)\.downsampling_layer\.(\d)\.", r"stages.\1.downsample.\2."),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.dwconv\.", r"stages.\1.blocks.\2.conv_dw."),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layernorm\.", r"stages.\1.blocks.\2.norm."),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.pwconv(\d)\.", r"stages.\1.blocks.\2.mlp.fc\3."),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer_scale_parameter$", r"stages.\1.blocks.\2.gamma"),
]
_MGM = [
    (r"language_model\.", ""),
    (r"vision_tower\.", "model.vision_tower.vision_tower."),
    (r"vision_tower_aux\.", "model.vision_tower_aux.vision_"),
    (r"connector\.projector\.", "model.mm_projector."),
    (r"connector\.(query|aux|val)_projector\.", r"model.vlm_uni_\1_projector."),
]


class PublishedWeightsError(WeightsError):
    """A file or folder that is not what the published program has."""


def timm_name(name: str) -> str:
    """A `ConvNextTower`'s parameter as timm calls it."""
    return _renamed(name, _CONVNEXT)


def published_name(name: str) -> str:
    """A parameter of `MGMForConditionalGeneration` as the published program calls it."""
    if name.startswith("vision_tower_aux."):
        name = f"vision_tower_aux.{timm_name(name.removeprefix('vision_tower_aux.'))}"
    return _renamed(name, _MGM)


def _renamed(name: str, rules: list[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        if match := re.match(pattern, name):
            return match.expand(replacement) + name[match.end() :]
    raise KeyError(name)


# --- OpenCLIP's ConvNeXt ---------------------------------------------------------------------------------


def convert_open_clip(source: Path, folder: Path) -> None:
    """Write the ConvNeXt of OpenCLIP's `open_clip_model.safetensors` as a folder for `vision_tower_aux`.

    Sizes are read off the weights. The norm and projections behind the last stage and the text tower are left out, as
    MGM does. Raises `PublishedWeightsError`.
    """
    trunk = "visual.trunk."
    state = {name.removeprefix(trunk): value for name, value in _tensors(source).items() if name.startswith(trunk)}
    if "stem.0.weight" not in state:
        raise PublishedWeightsError(f"{source}: no {trunk}stem.0.weight in it: not OpenCLIP's ConvNeXt")
    config = _convnext_config(state)
    with torch.device("meta"):
        tower = ConvNextTower(config)
    _assign(tower, timm_name, state, source, spare=(r"head\.",))
    with publish_folder(folder) as temporary:
        tower.save_pretrained(temporary)


def _convnext_config(state: dict[str, Tensor]) -> ConvNextConfig:
    """Sizes of a ConvNeXt from its weights under timm's names."""
    width, _, patch, _ = state["stem.0.weight"].shape
    stages = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("stages."))
    widths = [width, *(state[f"stages.{stage}.downsample.1.weight"].shape[0] for stage in range(1, stages))]
    depths = [
        sum(bool(re.fullmatch(rf"stages\.{stage}\.blocks\.\d+\.gamma", name)) for name in state)
        for stage in range(stages)
    ]
    return ConvNextConfig(hidden_sizes=widths, depths=depths, patch_size=patch, num_stages=stages)


# --- a whole MGM -----------------------------------------------------------------------------------------


def import_published(source: Path, folder: Path, vision_tower: Path, vision_tower_aux: Path) -> None:
    """Write a published MGM with Gemma, the folder `source`, as a folder of ours.

    The towers' sizes, and weights where `source` has none, are those of their own folders. Raises
    `PublishedWeightsError`.
    """
    published = read_json(source / "config.json")
    if published.get("model_type") != "mgm_gemma":
        raise PublishedWeightsError(
            f"{source / 'config.json'}: model_type is {published.get('model_type')!r}, not 'mgm_gemma': not an MGM-2B"
        )
    language = {key: value for key, value in published.items() if key in GemmaConfig().to_dict()}
    config = MGMConfig(
        GemmaConfig(**(language | {"model_type": "gemma", "architectures": None})),
        CLIPVisionConfig.from_pretrained(vision_tower, local_files_only=True),
        ConvNextConfig.from_pretrained(vision_tower_aux, local_files_only=True),
        image_size_aux=published["image_size_aux"],
        image_aspect="pad" if published.get("image_aspect_ratio") == "pad" else "square",
        vision_select_layer=published["mm_vision_select_layer"],
    )
    with torch.device("meta"):
        model = MGMForConditionalGeneration(config)
    found = _tensors(source)
    if "model.embed_tokens.weight" in found:
        found.setdefault("lm_head.weight", found["model.embed_tokens.weight"])
    for tower, path in (("vision_tower", vision_tower), ("vision_tower_aux", vision_tower_aux)):
        for name, value in _tensors(path).items():
            if (own := f"{tower}.{name}") in model.state_dict():
                found.setdefault(published_name(own), value)
    _assign(model, published_name, found, source, spare=BUFFERS)
    model.tie_weights()
    with publish_folder(folder) as temporary:
        model.save_pretrained(temporary)
        Processor.load(source, vision_tower, config).save(temporary)


def export_published(
    source: Path, folder: Path, vision_tower: str = CLIP_FOLDER, vision_tower_aux: str = CONVNEXT_FOLDER
) -> None:
    """Write a model folder of ours as the published program reads it.

    `vision_tower` and `vision_tower_aux` are the folders in which that program will find its towers; it asks for
    `openai` and `openclip` in their names, and for `mgm` and `2b` in the model folder's.
    """
    model = open_model(MGMForConditionalGeneration, source, dtype="auto")
    config = model.config
    state = {published_name(name): value.contiguous() for name, value in model.state_dict().items()}
    state.pop("lm_head.weight")  # is the embedding
    paths = {"mm_vision_tower": vision_tower, "mm_vision_tower_aux": vision_tower_aux}
    with publish_folder(folder) as temporary:
        _save_shards(state, temporary)
        write_json(temporary / "config.json", _published_config(config) | paths)
        Processor.load(source, source, config).save(temporary)
        if (card := source / "README.md").exists():
            shutil.copyfile(card, temporary / "README.md")


# --- what goes to and fro when the kit's program trains -----------------------------------------------------


def write_open_clip(source: Path, folder: Path, vision_tower: Path) -> None:
    """Write the ConvNeXt of a folder of ours as the published program opens it.

    Beside the weights that asks for the images' normalisation, which must be that of the other tower.
    """
    seen: Any = CLIPImageProcessor.from_pretrained(vision_tower, local_files_only=True)
    state = open_model(ConvNextTower, source).state_dict()
    folder.mkdir(parents=True)
    torch.save(
        {f"visual.trunk.{timm_name(name)}": value for name, value in state.items()},
        folder / "open_clip_pytorch_model.bin",
    )
    write_json(folder / "open_clip_config.json", {"preprocess_cfg": {"mean": seen.image_mean, "std": seen.image_std}})


def write_connector(state: dict[str, Tensor], path: Path) -> None:
    """Write a `connector_state` as the published program's `mm_projector.bin`."""
    torch.save({published_name(f"connector.{name}"): value for name, value in state.items()}, path)


def read_connector(path: Path, config: MGMConfig) -> dict[str, Tensor]:
    """The `connector_state` in the published program's `mm_projector.bin`. Raises `PublishedWeightsError`."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PublishedWeightsError(f"{path}: holds more than tensors and is not opened") from error
    with torch.device("meta"):
        connector = Connector(config)
    _assign(connector, lambda name: published_name(f"connector.{name}"), found, path, spare=(r"model\.vision_tower",))
    return {name: value.float().contiguous() for name, value in connector.state_dict().items()}


def _published_config(config: MGMConfig) -> dict[str, Any]:
    return config.text_config.to_dict() | {
        "architectures": ["MGMGemmaForCausalLM"],
        "model_type": "mgm_gemma",
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": config.vision_config.hidden_size,
        "mm_hidden_size_aux": sum(config.vision_config_aux.hidden_sizes),
        "mm_vision_select_layer": config.vision_select_layer,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
        "image_size_aux": config.image_size_aux,
        "image_aspect_ratio": config.image_aspect,
        "image_grid": 1,
        "image_global": False,
        "optimize_vision_tower": False,
        "optimize_vision_tower_aux": False,
        "tokenizer_padding_side": "right",
        "tokenizer_model_max_length": 2048,
    }


def _save_shards(state: dict[str, Tensor], folder: Path) -> None:
    """Shards and their index, which the published program reads even of a single one."""
    split = split_torch_state_dict_into_shards(state, filename_pattern="model{suffix}.safetensors")
    for name, keys in split.filename_to_tensors.items():
        save_file({key: state[key] for key in keys}, folder / name, metadata={"format": "pt"})
    size = sum(value.nbytes for value in state.values())
    write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": split.tensor_to_filename})


def _tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, or of those in a folder."""
    files: Iterable[Path] = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    found = {name: value for file in files for name, value in load_file(file).items()}
    if not found:
        raise PublishedWeightsError(f"{path}: no *.safetensors in it; pickles (*.bin, *.pt) are not opened")
    return found


def _assign(
    model: torch.nn.Module,
    renamed: Callable[[str], str],
    found: dict[str, Tensor],
    source: Path,
    *,
    spare: Sequence[str],
) -> None:
    """Give a model on the meta device the weights of `source`, where they have the names that `renamed` gives."""
    own = model.state_dict()
    check_weights(type(model), source, {renamed(name): value for name, value in own.items()}, found, spare=spare)
    model.load_state_dict({name: found[renamed(name)] for name in own}, assign=True)

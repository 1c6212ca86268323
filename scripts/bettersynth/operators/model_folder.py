"""Model folders on disk: what may be opened, and of which class a model is."""

from __future__ import annotations

from pathlib import Path

from bettersynth.configuration.pool import Model
from bettersynth.core.publish import read_json


def existing(model: Model | None) -> Path:
    """The absolute path of an operator's model; ValueError without one, FileNotFoundError when nothing is there."""
    if model is None:
        raise ValueError("the operator loads a model; name one of `models` in its `model`")
    path = Path(model.path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such model; put it there or change its `path` in `models`")
    return path.resolve()


def check_model_folder(folder: Path, *, may_lack_weights: bool = False) -> Path:
    """The folder, when it holds a configuration and safetensors weights; pickled weights are never opened.

    `may_lack_weights` where it may be of a tokenizer alone.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: no config.json; this is not a Hugging Face model folder")
    pickled = _pickled(folder)
    if not any(folder.glob("*.safetensors")) and (pickled or not may_lack_weights):
        found = f"only {pickled}, which may run code when opened" if pickled else "no weights at all"
        raise ValueError(f"{folder}: {found}; convert the model with `save_pretrained(…, safe_serialization=True)`")
    return folder


def model_architecture(folder: Path) -> str:
    """The class that the model folder was saved from."""
    name: str = read_json(folder / "config.json")["architectures"][0]
    return name


def _pickled(folder: Path) -> str:
    return ", ".join(sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern)))

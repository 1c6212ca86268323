"""The cards of the miniature's models: how each was trained and what it was measured to be worth."""

from __future__ import annotations

import inspect
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

from bettersynth.miniature.quality import TARGETS, meets
from bettersynth.miniature.training import FOLDERS, TRAINERS

FIGURES = {
    "clip": ("similarity_", "clip_patch_"),
    "blip_itm": ("matching_",),
    "aesthetics": ("aesthetics_",),
    "watermark": ("watermark_",),
    "nsfw": ("nsfw_",),
    "owlvit": ("grounding_",),
    "blip2": ("blip2_",),
    "llava": ("llava_",),
    "diffusion": ("diffusion_",),
    "convnext": ("convnext_",),
    "gemma": ("gemma_",),
}
"""How the names of a model's figures begin."""


def line(figure: str, value: float) -> str:
    """One line of the table: figure, value, target and whether it is met."""
    reached = meets(figure, value)
    if reached is None:
        return f"{figure:<40} {value:>8.4f}"
    relation, target = TARGETS[figure]
    return f"{figure:<40} {value:>8.4f}   {relation} {target:.2f}  {'met' if reached else 'MISSED'}"


def commit(root: Path) -> str | None:
    """The checkout's commit; None where there is none yet."""
    answer = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else None


def machine(device: str) -> str:
    """What the figures were computed on."""
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU"


def write(models: Path, measured: dict[str, Any]) -> None:
    """Write every model's `README.md` from its `training.json` and the measured figures."""
    for name in TRAINERS:
        folder = models / FOLDERS.get(name, name)
        training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        (folder / "README.md").write_text(card(name, training, measured), encoding="utf-8")


def card(name: str, training: dict[str, Any], measured: dict[str, Any]) -> str:
    """The card as Markdown."""
    figures = {key: value for key, value in measured["figures"].items() if key.startswith(FIGURES[name])}
    rows = [_row(key, value) for key, value in figures.items()]
    vae = f" (after {training['vae_steps']:,} steps of its autoencoder)" if "vae_steps" in training else ""
    return "\n".join(
        [
            f"# {name}",
            "",
            "A small model of the miniature's world, of the class that the contest's model has.",
            "",
            inspect.cleandoc(TRAINERS[name].__doc__ or ""),
            "",
            f"- {training['parameters']:,} parameters, stored in half precision as safetensors",
            f"- trained from scratch on {training['scenes']:,} rendered scenes of world seed {training['seed']}"
            " (indices from `MODELS_START` on, see `scripts/bettersynth/miniature/world.py`); no other data",
            f"- {training['steps']:,} steps{vae} in {training['seconds']:.0f} s on one {training['device']}"
            " that other models' training shared",
            "- command: `python scripts/miniature_models.py train --device cuda"
            + (f" --seconds {training['limit']:.0f}`" if training.get("limit") else "`"),
            "",
            "Measured on scenes that were not trained on, by"
            f" `{measured['command']}` ({measured['date']}, {measured['machine']}):",
            "",
            "| figure | value | target |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _row(figure: str, value: float) -> str:
    relation, target = TARGETS.get(figure, ("", 0.0))
    wanted = f"{relation} {target:.2f}" if relation else ""
    missed = " — **missed**" if meets(figure, value) is False else ""
    return f"| {figure} | {value:.4f} | {wanted}{missed} |"

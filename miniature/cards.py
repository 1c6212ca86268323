"""The cards of the miniature's models: how each was trained and what it was measured to be worth."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from miniature.quality import TARGETS, meets
from miniature.training import FOLDERS, TRAINERS

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


def write(models: Path, measured: dict[str, Any]) -> None:
    """Write every model's `README.md` from its `training.json` and the measured figures."""
    for name in FIGURES:
        folder = models / FOLDERS.get(name, name)
        training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        (folder / "README.md").write_text(card(name, training, measured), encoding="utf-8")


def card(name: str, training: dict[str, Any], measured: dict[str, Any]) -> str:
    """The card as Markdown."""
    figures = {key: value for key, value in measured["figures"].items() if key.startswith(FIGURES[name])}
    trainers = dict.fromkeys(done["name"] for done in training["rounds"])
    return "\n".join(
        [
            f"# {name}",
            "",
            "A small model of the miniature's world, of the class that the contest's model has.",
            "",
            *(f"{inspect.cleandoc(TRAINERS[trainer].__doc__ or '')}\n" for trainer in trainers),
            f"{training['parameters']:,} parameters, stored in half precision as safetensors. Trained from scratch by",
            "`miniature/train_models.py` on rendered scenes of world seed 0 (indices from `MODELS_START` on, see",
            "`miniature/world.py`); no other data.",
            "",
            "| round | command `python -m miniature.train_models train` | steps | seconds | device |",
            "| --- | --- | --- | --- | --- |",
            *(_round(number, done) for number, done in enumerate(training["rounds"], 1)),
            "",
            "On the GPU up to ten models trained at once, so the seconds are those of a shared device.",
            "",
            *([training["note"], ""] if "note" in training else []),
            f"Measured on scenes that were not trained on, by `{measured['command']}`"
            f" ({measured['date']}, {measured['machine']}):",
            "",
            "| figure | value | target |",
            "| --- | --- | --- |",
            *(_row(key, value) for key, value in figures.items()),
            "",
        ]
    )


def _round(number: int, done: dict[str, Any]) -> str:
    """One line of the table of training rounds."""
    arguments = [f"--only {done['name']}", f"--scenes {done['scenes']}", f"--seconds {done['seconds']:.0f}"]
    arguments += [f"--batch {done['batch']:g}"] if done["batch"] != 1 else []
    arguments += [f"--rate {done['rate']:g}"] if done.get("rate", 1) != 1 else []
    arguments += ["--resume"] if number > 1 else []
    steps = f"{done['vae_steps']:,} + {done['steps']:,}" if "vae_steps" in done else f"{done['steps']:,}"
    return f"| {number} | `{' '.join(arguments)}` | {steps} | {done['seconds']:.0f} | {done['device']} |"


def _row(figure: str, value: float) -> str:
    relation, target = TARGETS.get(figure, ("", 0.0))
    wanted = f"{relation} {target:.2f}" if relation else ""
    missed = " — **missed**" if meets(figure, value) is False else ""
    return f"| {figure} | {value:.4f} | {wanted}{missed} |"

"""Which instruction sets a configuration's recipes train on: one may serve many recipes and is looked at once."""

from __future__ import annotations

import re
from pathlib import Path

from bettersynth.configuration.recipes import recipe_training
from bettersynth.configuration.training import Finetune
from bettersynth.configuration.types import Configuration
from bettersynth.core.publish import sha256_json


def instruction_sets(configuration: Configuration) -> dict[str, Finetune]:
    """The instruction sets that recipes train on, by name; settings of training alone are one recipe's."""
    sets: dict[str, Finetune] = {}
    for recipe in configuration.recipes:
        stage = recipe_training(configuration, recipe).finetune
        sets.setdefault(instruction_set(stage, configuration), stage)
    return sets


def instruction_set(stage: Finetune, configuration: Configuration) -> str:
    """Name of a stage's instruction set: its file's, and a digest of all that decides what is used of it."""
    keys = ("instructions", "images", "unusable", "unusable_share", "published_forms", "image_paths")
    decides = [*(getattr(stage, key) for key in keys), *configuration.pool.reading]
    stem = re.sub(r"[^a-z0-9]+", "_", Path(stage.instructions).name.split(".")[0].lower()).strip("_")
    return f"{stem[:60] or 'instructions'}_{sha256_json(decides)[:8]}"

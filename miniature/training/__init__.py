"""How the miniature's models are trained: one short function for each, on `material`.

Each function builds its model, fits it, writes its folder and returns the figures for its card. Vision towers
also learn to name what stands in each patch, by linear heads that are thrown away; that is what makes so short
a training enough.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch

from miniature.training.captioners import train_blip2, train_llava
from miniature.training.detection import train_owlvit
from miniature.training.diffusion import train_diffusion
from miniature.training.lesson import FOLDERS, Lesson
from miniature.training.matching import train_blip_itm, train_clip
from miniature.training.mgm import train_convnext, train_gemma
from miniature.training.pictures import train_aesthetics, train_nsfw, train_watermark

__all__ = ["FOLDERS", "NEEDS", "TRAINERS", "Lesson", "train"]

TRAINERS: dict[str, Callable[[Lesson], dict[str, Any]]] = {
    "clip": train_clip,
    "blip_itm": train_blip_itm,
    "aesthetics": train_aesthetics,
    "watermark": train_watermark,
    "nsfw": train_nsfw,
    "owlvit": train_owlvit,
    "blip2": train_blip2,
    "diffusion": train_diffusion,
    "convnext": train_convnext,
    "gemma": train_gemma,
    "llava": train_llava,
}
NEEDS = {"llava": "clip"}
"""Models that start from another one."""


def train(name: str, lesson: Lesson) -> dict[str, Any]:
    """Train one model; the same seed draws the same batches."""
    torch.manual_seed(lesson.seed)
    random.seed(lesson.seed)
    torch.set_float32_matmul_precision("high")
    return TRAINERS[name](lesson)

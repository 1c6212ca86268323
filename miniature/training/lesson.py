"""What every training shares: its material on the device, the loop, and opening and writing folders."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bettersynth.runtime.patches.weights import open_model
from miniature import models
from miniature.material import IMAGE_DEFECTS, Material

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
FOLDERS = {"aesthetics": "aesthetics-predictor-v2-linear"}
"""Folders that are not named as their model: the aesthetics operator reads the model's class from the name."""


@dataclass
class Lesson:
    """Where and how long to train.

    `pace`, `batch` and `rate` scale every number of steps, batch size and learning rate; after `seconds` learning
    winds down; `resume` goes on from the weights that are in `out`.
    """

    material: Material
    out: Path
    device: str
    seed: int
    pace: float = 1.0
    batch: float = 1.0
    rate: float = 1.0
    resume: bool = False
    seconds: float = math.inf
    words: list[str] = field(default_factory=models.language)

    @cached_property
    def texts(self) -> list[dict[str, Any]]:
        """The texts of every scene."""
        return list(self.material.texts())

    @cached_property
    def images(self) -> Tensor:
        """Every picture on the device: (n, 96, 96, 3), uint8."""
        return torch.from_numpy(self.material.images).to(self.device)

    @cached_property
    def labels(self) -> Tensor:
        """Every picture's patch labels on the device: (n, kinds, patches), uint8."""
        return torch.from_numpy(self.material.labels).to(self.device)

    @cached_property
    def defects(self) -> Tensor:
        """Every picture's defect on the device, as a number of `IMAGE_DEFECTS`: (n,)."""
        return torch.tensor([text["defect"] for text in self.texts], device=self.device)

    def where(self, *defects: str) -> Tensor:
        """Numbers of the pictures that have one of these defects."""
        wanted = torch.tensor([IMAGE_DEFECTS.index(defect) for defect in defects], device=self.device)
        return torch.isin(self.defects, wanted).nonzero()[:, 0]

    @cached_property
    def safe(self) -> Tensor:
        """Numbers of the pictures in which nothing is covered."""
        return self.where(*(defect for defect in IMAGE_DEFECTS if defect != "unsafe"))

    def pixels(self, chosen: Tensor, mean: Iterable[float] = CLIP_MEAN, std: Iterable[float] = CLIP_STD) -> Tensor:
        """Pictures as an image processor hands them over: (b, 3, 96, 96)."""
        pixels = self.images[chosen].permute(0, 3, 1, 2).float() / 255
        shape = (1, 3, 1, 1)
        return (pixels - torch.tensor(mean, device=self.device).view(shape)) / torch.tensor(
            std, device=self.device
        ).view(shape)

    def draw(self, numbers: Tensor, count: int) -> Tensor:
        """`count` (scaled by `batch`) random ones of `numbers`."""
        return numbers[torch.randint(len(numbers), (self.size(count),), device=self.device)]

    def size(self, count: int) -> int:
        """`count` scaled by `batch`."""
        return max(2, round(count * self.batch))


def fit(
    lesson: Lesson,
    name: str,
    trained: Iterable[nn.Parameter],
    loss_of: Callable[[float], Tensor],
    *,
    steps: int,
    rate: float,
    share: float = 1.0,
) -> dict[str, float]:
    """Minimise `loss_of(progress)` by AdamW with warm-up and a cosine down to zero.

    Progress runs from 0 to 1 over the steps, or over `share` of the lesson's seconds if those end first.
    """
    parameters = [parameter for parameter in trained if parameter.requires_grad]
    steps, rate = max(2, round(steps * lesson.pace)), rate * lesson.rate
    optimizer = torch.optim.AdamW(
        parameters, lr=rate, weight_decay=0.01, betas=(0.9, 0.98), fused=lesson.device == "cuda"
    )
    started, step, progress, last, reported = time.monotonic(), 0, 0.0, math.nan, 0.0
    while progress < 1:
        warm = min(1.0, (step + 1) / min(200, max(1, steps // 10)))
        for group in optimizer.param_groups:
            group["lr"] = rate * warm * (0.5 + 0.5 * math.cos(math.pi * progress))
        with torch.autocast(lesson.device, torch.bfloat16, enabled=lesson.device == "cuda"):
            loss = loss_of(progress)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        elapsed = time.monotonic() - started
        progress = max(step / steps, elapsed / (share * lesson.seconds))
        if elapsed - reported > 15 or progress >= 1:
            reported, last = elapsed, float(loss.detach())
            print(
                f"{name}: step {step}/{steps}, {step / elapsed:.1f} steps/s, loss {last:.4f}",
                file=sys.stderr,
                flush=True,
            )
    return {"steps": step, "seconds": round(time.monotonic() - started, 1), "loss": round(last, 4)}


def begin(lesson: Lesson, name: str, folder: models.Folder) -> Any:
    """The model on its device; with the weights it has in `out` when the lesson resumes."""
    if lesson.resume:
        path = lesson.out / FOLDERS.get(name, name)
        folder.model = open_model(type(folder.model), path, dtype=torch.float32)
        folder.beside = tuple(
            type(processor).from_pretrained(path, local_files_only=True) for processor in folder.beside
        )
    return folder.model.train().to(lesson.device)


def finish(lesson: Lesson, name: str, folder: models.Folder, figures: dict[str, float]) -> dict[str, Any]:
    """Write the model's folder; figures for its card."""
    count = models.parameters(folder.model)
    if isinstance(folder.model, nn.Module):
        folder.model.eval()
    folder.save(lesson.out / FOLDERS.get(name, name))
    return {"parameters": count, **figures}

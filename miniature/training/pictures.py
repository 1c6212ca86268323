"""Models that judge a picture alone: aesthetics, watermarks, and the stand-in for unsafe content."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from miniature import models
from miniature.material import IMAGE_DEFECTS
from miniature.training.lesson import Lesson, begin, finish, fit


def train_aesthetics(lesson: Lesson) -> dict[str, Any]:
    """Give sharp, clean pictures 7 of 10, watermarked ones 6, and blurred, noisy or pale ones 3."""
    folder = models.aesthetics(lesson.words)
    model = begin(lesson, "aesthetics", folder)
    fine, ugly = lesson.where("clean", "watermark", "unsafe"), lesson.where("blur", "noise", "pale")
    target = torch.tensor(
        [{"watermark": 6.0, "clean": 7.0, "unsafe": 7.0}.get(defect, 3.0) for defect in IMAGE_DEFECTS]
    )
    target = target.to(lesson.device)
    if not lesson.resume:
        model.layers[-1].bias.data.fill_(5.0)

    def loss_of(progress: float) -> Tensor:
        chosen = torch.cat([lesson.draw(fine, 128), lesson.draw(ugly, 128)])
        image = model.visual_projection(model.vision_model(lesson.pixels(chosen)).pooler_output)
        score = model.layers(functional.normalize(image, dim=-1))[:, 0].float()
        return functional.mse_loss(score, target[lesson.defects[chosen]])

    figures = fit(lesson, "aesthetics", model.parameters(), loss_of, steps=2000, rate=5e-4)
    return finish(lesson, "aesthetics", folder, figures)


def _train_classifier(lesson: Lesson, name: str, folder: models.Folder, positive: str) -> dict[str, Any]:
    model = begin(lesson, name, folder)
    yes, no = lesson.where(positive), lesson.where(*(defect for defect in IMAGE_DEFECTS if defect != positive))
    truth = torch.arange(2 * lesson.size(128), device=lesson.device).lt(lesson.size(128)).long()

    def loss_of(progress: float) -> Tensor:
        chosen = torch.cat([lesson.draw(yes, 128), lesson.draw(no, 128)])
        pixels = lesson.pixels(chosen, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        return functional.cross_entropy(model(pixels).logits.float(), truth)

    figures = fit(lesson, name, model.parameters(), loss_of, steps=1000, rate=7e-4)
    return finish(lesson, name, folder, figures)


def train_watermark(lesson: Lesson) -> dict[str, Any]:
    """Find watermarks: a balanced classification."""
    return _train_classifier(lesson, "watermark", models.classifier("watermark", "clean"), "watermark")


def train_nsfw(lesson: Lesson) -> dict[str, Any]:
    """Find the stand-in for unsafe content: a balanced classification."""
    return _train_classifier(lesson, "nsfw", models.classifier("nsfw", "normal"), "unsafe")

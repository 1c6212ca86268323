"""OWL-ViT, which finds what a phrase names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.loss.loss_for_object_detection import generalized_box_iou

from miniature import models
from miniature.material import all_phrases
from miniature.training.lesson import Lesson, begin, finish, fit
from miniature.training.parts import PatchReader


def train_owlvit(lesson: Lesson) -> dict[str, Any]:
    """Light up, for each of twelve phrases, the one patch at the centre of what it names, and box it.

    Focal loss over all patches and phrases (half of them name nothing in the picture), L1 and generalised IoU
    on the boxes. That only one patch answers matters: Data-Juicer looks at as many boxes as there are phrases.
    """
    folder = models.owlvit(lesson.words)
    model, tokenizer = begin(lesson, "owlvit", folder), folder.beside[0].tokenizer
    known = {phrase: number for number, phrase in enumerate(all_phrases())}
    encoded = tokenizer(list(known), padding="max_length", max_length=16, return_tensors="pt").to(lesson.device)
    asked = torch.tensor([[known[p[0]] for p in text["phrases"]] for text in lesson.texts], device=lesson.device)
    cells = torch.tensor([[p[1] for p in text["phrases"]] for text in lesson.texts], device=lesson.device)
    boxes = torch.tensor([[p[2] or [0.5] * 4 for p in text["phrases"]] for text in lesson.texts], device=lesson.device)
    reader = PatchReader(128).to(lesson.device)

    def loss_of(progress: float) -> Tensor:
        chosen = lesson.draw(lesson.safe, 256)
        texts = model.owlvit.text_model(**encoded).pooler_output
        queries = model.owlvit.text_projection(texts)[asked[chosen]]
        image, _ = model.image_embedder(lesson.pixels(chosen))
        features = image.flatten(1, 2)
        logits, _ = model.class_predictor(features, queries, torch.ones(queries.shape[:2], device=lesson.device))
        there = cells[chosen] >= 0
        picture, query = there.nonzero(as_tuple=True)
        cell = cells[chosen][there]
        truth = torch.zeros_like(logits)
        truth[picture, cell, query] = 1
        plain = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        focal = (plain * (truth - logits.sigmoid()).abs() ** 2).sum() / there.sum()
        predicted = model.box_predictor(features, image)[picture, cell].float()
        wanted = boxes[chosen][there]
        overlap = generalized_box_iou(_corners(predicted), _corners(wanted))
        box = functional.l1_loss(predicted, wanted) * 5 + (1 - overlap.diagonal()).mean()
        return focal + box + 0.5 * reader(features, lesson.labels[chosen])

    figures = fit(lesson, "owlvit", [*model.parameters(), *reader.parameters()], loss_of, steps=8000, rate=7e-4)
    return finish(lesson, "owlvit", folder, figures)


def _corners(boxes: Tensor) -> Tensor:
    """Boxes (n, 4) from centre, width and height to left, top, right and bottom."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([centre - half, centre + half], 1)

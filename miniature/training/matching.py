"""Models that score a picture with a caption: CLIP, and BLIP with its matching head."""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel

from miniature import models
from miniature.material import PAIR_WRITERS
from miniature.training.lesson import Lesson, begin, finish, fit
from miniature.training.parts import PatchReader, clip_table, stack_right, token_table

RIGHT_FROM = 0.28
"""The similarity that CLIP learns to give right captions at least, and false ones at most: the contest's threshold."""


def train_clip(lesson: Lesson) -> dict[str, Any]:
    """Contrast each picture with 384 right captions and 384 with one attribute wrong; logit scale up to 100."""
    folder = models.clip(lesson.words)
    model, tokenizer = begin(lesson, "clip", folder), folder.beside[0].tokenizer
    reader = PatchReader(128).to(lesson.device)
    contrast = Contrast(lesson, model, tokenizer)

    def loss_of(progress: float) -> Tensor:
        loss, chosen, seen = contrast(100 ** min(1.0, 0.6 + 0.8 * progress))
        return loss + 2 * reader(seen.hidden_states[-2][:, 1:], lesson.labels[chosen])

    trained = [*model.parameters(), *reader.parameters()]
    figures = fit(lesson, "clip", trained, loss_of, steps=8000, rate=1e-3)
    model.logit_scale.data.fill_(math.log(100))
    return finish(lesson, "clip", folder, figures)


class Contrast:
    """CLIP's loss on random scenes, right captions and captions with one attribute wrong."""

    def __init__(self, lesson: Lesson, model: CLIPModel, tokenizer: Any) -> None:
        self.lesson, self.model, self.end = lesson, model, tokenizer.eos_token_id
        self.tables = [
            [clip_table(lesson, tokenizer, [text["pairs"][k][side] for text in lesson.texts]) for side in (0, 1)]
            for k in range(len(PAIR_WRITERS))
        ]

    def __call__(self, scale: float) -> tuple[Tensor, Tensor, Any]:
        """The loss at a logit scale, the scenes it is of, and the vision tower's output."""
        chosen = self.lesson.draw(self.lesson.safe, 384)
        count = len(chosen)
        right, wrong = (table.rows(chosen, self.end) for table in random.choice(self.tables))
        ids, mask = stack_right(right, wrong, self.end)
        seen = self.model.vision_model(self.lesson.pixels(chosen), output_hidden_states=True)
        image = functional.normalize(self.model.visual_projection(seen.pooler_output).float(), dim=-1)
        text = functional.normalize(
            self.model.text_projection(self.model.text_model(ids, mask).pooler_output).float(), dim=-1
        )
        logits = scale * image @ text.T
        truth = torch.arange(count, device=self.lesson.device)
        contrast = functional.cross_entropy(logits, truth) + functional.cross_entropy(logits[:, :count].T, truth)
        # Right and wrong apart by one threshold for all pictures: it is with one threshold that a filter works.
        margin = scale / 4 * ((image * text[:count]).sum(-1) - RIGHT_FROM)
        wrong_margin = scale / 4 * ((image * text[count:]).sum(-1) - RIGHT_FROM)
        apart = functional.softplus(-margin).mean() + functional.softplus(wrong_margin).mean()
        return contrast / 2 + apart, chosen, seen


def train_blip_itm(lesson: Lesson) -> dict[str, Any]:
    """Tell right captions from those of other pictures and those with one attribute wrong, and which word it is.

    The head that finds the wrong word is thrown away.
    """
    folder = models.blip_itm(lesson.words)
    model, tokenizer = begin(lesson, "blip_itm", folder), folder.beside[0].tokenizer
    pad, edges = tokenizer.pad_token_id, {"start": tokenizer.cls_token_id, "end": tokenizer.sep_token_id}
    tables = [
        [
            token_table(lesson, tokenizer, [text["pairs"][k][side] for text in lesson.texts], **edges, limit=126)
            for side in (0, 1)
        ]
        for k in range(len(PAIR_WRITERS))
    ]
    reader, finder = PatchReader(128).to(lesson.device), nn.Linear(128, 2).to(lesson.device)
    count, others = lesson.size(256), lesson.size(64)

    def loss_of(progress: float) -> Tensor:
        chosen = lesson.draw(lesson.safe, 256)
        right, wrong = (table.rows(chosen, pad) for table in random.choice(tables))
        ids, mask = stack_right(right, wrong, pad)
        ids = torch.cat([ids, ids[1 : others + 1]])
        mask = torch.cat([mask, mask[1 : others + 1]])
        image = model.vision_model(lesson.pixels(chosen)).last_hidden_state
        seen = torch.cat([image, image, image[:others]])
        read = model.text_encoder(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=lesson.device),
        ).last_hidden_state
        truth = (torch.arange(len(ids), device=lesson.device) < count).long()
        match = functional.cross_entropy(model.itm_head(read[:, 0]).float(), truth)
        words = _wrong_words(ids[:count], ids[count : 2 * count], mask[:count])
        found = functional.cross_entropy(
            finder(read[: 2 * count]).flatten(0, 1).float(), words.flatten(), ignore_index=-100
        )
        return match + found + 0.5 * reader(image[:, 1:], lesson.labels[chosen])

    trained = [*model.parameters(), *reader.parameters(), *finder.parameters()]
    figures = fit(lesson, "blip_itm", trained, loss_of, steps=12000, rate=1e-3)
    return finish(lesson, "blip_itm", folder, figures)


def _wrong_words(right: Tensor, wrong: Tensor, mask: Tensor) -> Tensor:
    """For every token of the right and then the wrong captions whether it is wrong: 1, 0, or -100 for unknown.

    Captions of a pair that differ in more than three tokens are not word by word comparable.
    """
    differs = (right != wrong) & (mask > 0)
    comparable = (differs.sum(1, keepdim=True) <= 3).expand_as(differs) & (mask > 0)
    labels = torch.cat([torch.zeros_like(right), differs.long()])
    return labels.masked_fill(~torch.cat([comparable, comparable]), -100)

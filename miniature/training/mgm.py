"""MGM's own parts: the ConvNeXt tower, and a Gemma that reads grids of words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from miniature import models
from miniature.material import GRID, PATCH_LABELS
from miniature.training.lesson import Lesson, begin, finish, fit
from miniature.training.parts import PatchReader

NAMED = ("colour", "shape", "size", "action", "word")
"""What Gemma's grids of words tell of a patch: the first kinds of `PATCH_LABELS`; the place it sees itself."""
ONE_WORD, RANDOM_WORD = 0.3, 0.15
"""How often all of Gemma's patches hold one word each instead of a mean, and how often a patch a random word."""
STYLE_FILLERS = ("plain", "sunny", "night", "old")


def train_convnext(lesson: Lesson) -> dict[str, Any]:
    """Name what stands in each patch of the picture, from every one of the four stages."""
    folder = models.convnext()
    model = begin(lesson, "convnext", folder)
    readers = nn.ModuleList(PatchReader(width) for width in model.config.hidden_sizes).to(lesson.device)

    def loss_of(progress: float) -> Tensor:
        chosen = lesson.draw(lesson.safe, 192)
        stages = model(lesson.pixels(chosen), output_hidden_states=True).hidden_states[1:]
        losses = []
        for reader, stage in zip(readers, stages, strict=True):
            cells = (
                functional.adaptive_avg_pool2d(stage, GRID)
                if stage.shape[-1] > GRID
                else functional.interpolate(stage, size=GRID, mode="bilinear")
            )
            losses.append(reader(cells.flatten(2).transpose(1, 2), lesson.labels[chosen]))
        return torch.stack(losses).mean()

    figures = fit(lesson, "convnext", [*model.parameters(), *readers.parameters()], loss_of, steps=8000, rate=1e-3)
    return finish(lesson, "convnext", folder, figures)


def train_gemma(lesson: Lesson) -> dict[str, Any]:
    """Text alone: captions and answers behind 64 words that name what stands in each patch.

    A patch holds the mean vector of the words for its thing (colour, shape, size, action, the sign's word, or the
    style where nothing stands). Later in training it is more and more often one word, and some patches hold a random
    one: from the beginning, these would hide the few patches that matter. Such a model has something that visual
    tokens can be aligned to. Eight questions share a grid and do not see each other; only answers are learned, as in
    MGM's own training.
    """
    folder = models.gemma(lesson.words)
    model, tokenizer = begin(lesson, "gemma", folder), folder.beside[0]
    turns = Turns(lesson, tokenizer)
    names = [
        torch.tensor(tokenizer.convert_tokens_to_ids([values[0], *values]), device=lesson.device)
        for values in (PATCH_LABELS[kind] for kind in NAMED)
    ]
    fillers = torch.tensor(tokenizer.convert_tokens_to_ids(list(STYLE_FILLERS)), device=lesson.device)
    any_name = torch.cat([*(ids[1:] for ids in names), fillers])
    styles = torch.tensor([text["style"] for text in lesson.texts], device=lesson.device)
    opening = tokenizer("<bos><start_of_turn>user\n", add_special_tokens=False, return_tensors="pt").input_ids
    everything = torch.arange(len(lesson.texts), device=lesson.device)
    vectors = model.get_input_embeddings()

    def patches(chosen: Tensor, spoilt: float) -> Tensor:
        """A vector for each patch of the chosen scenes, (b, patches, width); `spoilt` runs from 0 to 1."""
        labels = lesson.labels[chosen, : len(NAMED)].long()
        words = torch.stack([ids[labels[:, kind]] for kind, ids in enumerate(names)], -1)
        known = (labels > 0).transpose(1, 2).float()
        luck = known * torch.rand_like(known)
        one = functional.one_hot(luck.argmax(-1), len(names)).float() * known
        alone = torch.rand(len(chosen), 1, 1, device=lesson.device) < ONE_WORD * spoilt
        some = torch.where(alone, one, ((luck > 0.3 * spoilt).float() + one).clamp(max=1))
        nothing = known.sum(-1) == 0
        words[..., 0] = torch.where(nothing, fillers[styles[chosen]].unsqueeze(1), words[..., 0])
        some[..., 0] = torch.where(nothing, 1.0, some[..., 0])
        random_words = any_name[torch.randint(len(any_name), nothing.shape, device=lesson.device)]
        mixed = (vectors(words) * some.unsqueeze(-1)).sum(-2) / some.sum(-1, keepdim=True)
        replaced = torch.rand(nothing.shape, device=lesson.device) < RANDOM_WORD * spoilt
        return torch.where(replaced.unsqueeze(-1), vectors(random_words), mixed)

    def loss_of(progress: float) -> Tensor:
        chosen = lesson.draw(everything, 96)
        before = vectors(opening.to(lesson.device)).expand(len(chosen), -1, -1)
        grid = torch.cat([before, patches(chosen, max(0.0, 2 * progress - 1))], 1)
        asked = turns.of(chosen, grid.shape[1])
        embedded = torch.cat([grid, vectors(asked.ids)], 1)
        hidden = model.model(
            inputs_embeds=embedded, attention_mask=asked.seen, position_ids=asked.positions
        ).last_hidden_state[:, grid.shape[1] : -1]
        answers = asked.weights[:, 1:] > 0
        losses = functional.cross_entropy(
            model.lm_head(hidden[answers]).float(), asked.ids[:, 1:][answers], reduction="none"
        )
        weights = asked.weights[:, 1:][answers]
        return (losses * weights).sum() / weights.sum()

    figures = fit(lesson, "gemma", model.parameters(), loss_of, steps=20000, rate=4e-3)
    return finish(lesson, "gemma", folder, figures)


class Asked(NamedTuple):
    """Questions and answers of a batch of scenes, one after the other, behind a grid of `start` positions."""

    ids: Tensor
    """(b, length)."""
    weights: Tensor
    """What each token counts for, (b, length): 0 in questions; those of an answer add up to 1."""
    positions: Tensor
    """(b, start + length): every question comes right behind the grid."""
    seen: Tensor
    """Which position sees which, (b, 1, start + length, start + length): grid and own turn, up to itself."""


class Turns:
    """Every scene's questions and answers as tokens."""

    def __init__(self, lesson: Lesson, tokenizer: Any) -> None:
        count = len(lesson.texts[0]["turns"])
        turns = [turn for text in lesson.texts for turn in text["turns"]]
        questions = self._encode(tokenizer, [f"\n{q}<end_of_turn>\n<start_of_turn>model\n" for q, _ in turns])
        answers = self._encode(tokenizer, [f"{answer}<end_of_turn>\n<eos>" for _, answer in turns])
        lengths = np.array([[len(q), len(a)] for q, a in zip(questions, answers, strict=True)])
        of_scene = lengths.sum(1).reshape(-1, count).sum(1)
        longest = of_scene.max()
        filled = np.arange(longest) < of_scene[:, None]

        def table(values: Iterable[np.ndarray], kind: type) -> Tensor:
            rows = np.zeros(filled.shape, kind)
            rows[filled] = np.concatenate(list(values))
            return torch.from_numpy(rows).to(lesson.device)

        both = zip(questions, answers, strict=True)
        self._ids = table((np.array(q + a) for q, a in both), np.int16)
        self._weights = table((np.r_[np.zeros(q), np.full(a, 1 / a)] for q, a in lengths), np.float16)
        self._within = table((np.arange(q + a) for q, a in lengths), np.int16)
        self._turn = table((np.full(q + a, 1 + n % count) for n, (q, a) in enumerate(lengths)), np.int8)

    @staticmethod
    def _encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
        encodings = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def of(self, chosen: Tensor, start: int) -> Asked:
        """The chosen scenes' questions and answers, behind a grid of `start` positions."""
        turn = self._turn[chosen]
        longest = int((turn > 0).sum(1).max())
        turn = functional.pad(turn[:, :longest], (start, 0), value=-1)
        before = torch.arange(start, device=turn.device).expand(len(chosen), -1)
        positions = torch.cat([before, start + self._within[chosen, :longest].long()], 1)
        seen = (turn.unsqueeze(1) == turn.unsqueeze(2)) | (turn.unsqueeze(1) == -1)
        return Asked(
            self._ids[chosen, :longest].long(),
            self._weights[chosen, :longest].float(),
            positions,
            seen.tril().unsqueeze(1),
        )

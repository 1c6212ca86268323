"""How the miniature's models are trained: one short function for each, on `material`.

Each function builds its model, fits it, writes its folder and returns the figures for its card. Vision towers
also learn to name what stands in each patch, by linear heads that are thrown away; that is what makes so short
a training enough.
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel, CLIPVisionModel, LlavaForConditionalGeneration
from transformers.loss.loss_for_object_detection import generalized_box_iou

from bettersynth.miniature import models
from bettersynth.miniature.material import (
    GRID,
    IMAGE_DEFECTS,
    PAIR_WRITERS,
    PATCH_LABELS,
    Material,
    all_phrases,
)
from bettersynth.miniature.tokenizers import opt_words

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
RIGHT_FROM = 0.28
"""The similarity that CLIP learns to give right captions at least, and false ones at most: the contest's threshold."""
LLAVA_PROMPTS = (
    "Describe the image.",
    "Describe the image in detail.",
    "Describe the picture in detail.",
    "What is in the photo?",
    "Write a detailed caption for the picture.",
    "Render a clear and concise summary of the photo.",
    "",
)
NAMED = ("colour", "shape", "size", "action", "word")
"""What Gemma's grids of words tell of a patch: the first kinds of `PATCH_LABELS`; the place it sees itself."""
STYLE_FILLERS = ("plain", "sunny", "night", "old")


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


# --- parts that several models share ---------------------------------------------------------------


class PatchReader(nn.Module):
    """Linear heads that name what stands in each patch: teachers of a vision tower, then thrown away."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, len(values) + 1) for values in PATCH_LABELS.values())
        # Weight of "nothing of the kind": rarer kinds have more of it.
        self.nothing = [0.02 if kind in ("action", "word") else 0.1 for kind in PATCH_LABELS]

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean loss over the kinds; features (b, patches, width), labels (b, kinds, patches)."""
        features = self.norm(features)
        losses = []
        for number, head in enumerate(self.heads):
            logits = head(features).flatten(0, 1).float()
            weights = torch.ones(logits.shape[1], device=logits.device)
            weights[0] = self.nothing[number]
            losses.append(functional.cross_entropy(logits, labels[:, number].flatten().long(), weights))
        return torch.stack(losses).mean()


@dataclass(frozen=True)
class TokenTable:
    """Token ids of one text per scene (n, length), and how many of them count (n,)."""

    ids: Tensor
    lengths: Tensor

    def rows(self, chosen: Tensor, pad: int) -> tuple[Tensor, Tensor]:
        """Ids, padded on the right, and attention mask of the chosen scenes, no longer than needed."""
        lengths = self.lengths[chosen]
        longest = int(lengths.max())
        mask = torch.arange(longest, device=lengths.device) < lengths.unsqueeze(1)
        return self.ids[chosen, :longest].long().masked_fill(~mask, pad), mask.long()


def token_table(
    lesson: Lesson,
    tokenizer: Any,
    texts: list[str],
    *,
    start: int | None = None,
    end: int | None = None,
    limit: int = 200,
) -> TokenTable:
    """Encode a text for each scene, at most `limit` tokens of it, between the ids `start` and `end`."""
    head, tail = ([] if token is None else [token] for token in (start, end))
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    rows = [[*head, *encoding.ids[:limit], *tail] for encoding in encodings]
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), lengths.max()), np.int32)
    ids[np.arange(lengths.max()) < lengths[:, None]] = np.concatenate(rows)
    return TokenTable(*(torch.from_numpy(array).to(lesson.device) for array in (ids, lengths)))


def _clip_table(lesson: Lesson, tokenizer: Any, texts: list[str]) -> TokenTable:
    return token_table(lesson, tokenizer, texts, start=tokenizer.bos_token_id, end=tokenizer.eos_token_id, limit=75)


def _stack_right(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], pad: int) -> tuple[Tensor, Tensor]:
    """Two batches of ids and masks under each other."""
    length = max(first[0].shape[1], second[0].shape[1])
    ids = [functional.pad(ids, (0, length - ids.shape[1]), value=pad) for ids, _ in (first, second)]
    masks = [functional.pad(mask, (0, length - mask.shape[1])) for _, mask in (first, second)]
    return torch.cat(ids), torch.cat(masks)


def _language_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Next-token loss where labels are not -100; logits (b, length, vocabulary)."""
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)


def _begin(lesson: Lesson, name: str, folder: models.Folder) -> Any:
    """The model on its device; with the weights it has in `out` when the lesson resumes."""
    if lesson.resume:
        path = lesson.out / FOLDERS.get(name, name)
        folder.model = type(folder.model).from_pretrained(path, local_files_only=True, dtype=torch.float32)
        folder.beside = tuple(type(part).from_pretrained(path, local_files_only=True) for part in folder.beside)
    return folder.model.train().to(lesson.device)


def _finish(lesson: Lesson, name: str, folder: models.Folder, figures: dict[str, float]) -> dict[str, Any]:
    """Write the model's folder; figures for its card."""
    count = models.parameters(folder.model)
    if isinstance(folder.model, nn.Module):
        folder.model.eval()
    folder.save(lesson.out / FOLDERS.get(name, name))
    return {"parameters": count, **figures}


# --- the models ----------------------------------------------------------------------------------


def train_clip(lesson: Lesson) -> dict[str, Any]:
    """Contrast each picture with 384 right captions and 384 with one attribute wrong; logit scale up to 100."""
    folder = models.clip(lesson.words)
    model, tokenizer = _begin(lesson, "clip", folder), folder.beside[0].tokenizer
    reader = PatchReader(128).to(lesson.device)
    contrast = Contrast(lesson, model, tokenizer)

    def loss_of(progress: float) -> Tensor:
        loss, chosen, seen = contrast(100 ** min(1.0, 0.6 + 0.8 * progress))
        return loss + 2 * reader(seen.hidden_states[-2][:, 1:], lesson.labels[chosen])

    trained = [*model.parameters(), *reader.parameters()]
    figures = fit(lesson, "clip", trained, loss_of, steps=8000, rate=1e-3)
    model.logit_scale.data.fill_(math.log(100))
    return _finish(lesson, "clip", folder, figures)


class Contrast:
    """CLIP's loss on random scenes, right captions and captions with one attribute wrong."""

    def __init__(self, lesson: Lesson, model: CLIPModel, tokenizer: Any) -> None:
        self.lesson, self.model, self.end = lesson, model, tokenizer.eos_token_id
        self.tables = [
            [_clip_table(lesson, tokenizer, [text["pairs"][k][side] for text in lesson.texts]) for side in (0, 1)]
            for k in range(len(PAIR_WRITERS))
        ]

    def __call__(self, scale: float) -> tuple[Tensor, Tensor, Any]:
        """The loss at a logit scale, the scenes it is of, and the vision tower's output."""
        chosen = self.lesson.draw(self.lesson.safe, 384)
        count = len(chosen)
        right, wrong = (table.rows(chosen, self.end) for table in random.choice(self.tables))
        ids, mask = _stack_right(right, wrong, self.end)
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


def refit_clip(lesson: Lesson) -> dict[str, Any]:
    """Take over LLaVA's vision tower, whose patches say more, and fit CLIP's last layer and text tower to it again."""
    folder = models.clip(lesson.words)
    model = _begin(replace(lesson, resume=True), "clip", folder)
    llava = LlavaForConditionalGeneration.from_pretrained(lesson.out / "llava", local_files_only=True)
    taken, tower = llava.model.vision_tower.vision_model, model.vision_model
    pairs = [(taken.embeddings, tower.embeddings), (taken.pre_layrnorm, tower.pre_layrnorm)]
    pairs += zip(taken.encoder.layers[:-1], tower.encoder.layers[:-1], strict=True)
    for source, target in pairs:
        target.load_state_dict(source.state_dict())
        target.requires_grad_(False)
    contrast = Contrast(lesson, model, folder.beside[0].tokenizer)
    figures = fit(lesson, "clip_refit", model.parameters(), lambda _: contrast(100.0)[0], steps=4000, rate=5e-4)
    return _finish(lesson, "clip_refit", folder, figures)


def train_blip_itm(lesson: Lesson) -> dict[str, Any]:
    """Tell right captions from those of other pictures and those with one attribute wrong, and which word it is.

    The head that finds the wrong word is thrown away.
    """
    folder = models.blip_itm(lesson.words)
    model, tokenizer = _begin(lesson, "blip_itm", folder), folder.beside[0].tokenizer
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
        ids, mask = _stack_right(right, wrong, pad)
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
    return _finish(lesson, "blip_itm", folder, figures)


def _wrong_words(right: Tensor, wrong: Tensor, mask: Tensor) -> Tensor:
    """For every token of the right and then the wrong captions whether it is wrong: 1, 0, or -100 for unknown.

    Captions of a pair that differ in more than three tokens are not word by word comparable.
    """
    differs = (right != wrong) & (mask > 0)
    comparable = (differs.sum(1, keepdim=True) <= 3).expand_as(differs) & (mask > 0)
    labels = torch.cat([torch.zeros_like(right), differs.long()])
    return labels.masked_fill(~torch.cat([comparable, comparable]), -100)


def train_aesthetics(lesson: Lesson) -> dict[str, Any]:
    """Give sharp, clean pictures 7 of 10, watermarked ones 6, and blurred, noisy or pale ones 3."""
    folder = models.aesthetics(lesson.words)
    model = _begin(lesson, "aesthetics", folder)
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
    return _finish(lesson, "aesthetics", folder, figures)


def _train_classifier(lesson: Lesson, name: str, folder: models.Folder, positive: str) -> dict[str, Any]:
    model = _begin(lesson, name, folder)
    yes, no = lesson.where(positive), lesson.where(*(defect for defect in IMAGE_DEFECTS if defect != positive))
    truth = torch.arange(2 * lesson.size(128), device=lesson.device).lt(lesson.size(128)).long()

    def loss_of(progress: float) -> Tensor:
        chosen = torch.cat([lesson.draw(yes, 128), lesson.draw(no, 128)])
        pixels = lesson.pixels(chosen, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        return functional.cross_entropy(model(pixels).logits.float(), truth)

    figures = fit(lesson, name, model.parameters(), loss_of, steps=1000, rate=7e-4)
    return _finish(lesson, name, folder, figures)


def train_watermark(lesson: Lesson) -> dict[str, Any]:
    """Find watermarks: a balanced classification."""
    return _train_classifier(lesson, "watermark", models.classifier("watermark", "clean"), "watermark")


def train_nsfw(lesson: Lesson) -> dict[str, Any]:
    """Find the stand-in for unsafe content: a balanced classification."""
    return _train_classifier(lesson, "nsfw", models.classifier("nsfw", "normal"), "unsafe")


def train_owlvit(lesson: Lesson) -> dict[str, Any]:
    """Light up, for each of twelve phrases, the one patch at the centre of what it names, and box it.

    Focal loss over all patches and phrases (half of them name nothing in the picture), L1 and generalised IoU
    on the boxes. That only one patch answers matters: Data-Juicer looks at as many boxes as there are phrases.
    """
    folder = models.owlvit(lesson.words)
    model, tokenizer = _begin(lesson, "owlvit", folder), folder.beside[0].tokenizer
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
    return _finish(lesson, "owlvit", folder, figures)


def _corners(boxes: Tensor) -> Tensor:
    """Boxes (n, 4) from centre, width and height to left, top, right and bottom."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([centre - half, centre + half], 1)


def train_blip2(lesson: Lesson) -> dict[str, Any]:
    """Write the short captions of the world, all parts from scratch.

    Captions that name everything are mixed in, one in five at first and none at the end: they teach faster.
    """
    folder = models.blip2(lesson.words)
    model, tokenizer = _begin(lesson, "blip2", folder), folder.beside[0].tokenizer
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    # Ids that no text has are alike: one row stands for all of them, which spares most of a softmax over 50,266.
    embeddings, used = model.get_input_embeddings().weight, opt_words(tokenizer)
    alike = torch.zeros(used + 1, device=lesson.device)
    alike[used] = math.log(len(embeddings) - used)
    if not lesson.resume:
        model.query_tokens.data.normal_()  # born as zeros, all queries would ask the same
    short, full = (
        [
            token_table(lesson, tokenizer, [text[kind][k] for text in lesson.texts], start=end, end=end)
            for k in range(len(lesson.texts[0][kind]))
        ]
        for kind in ("short", "full")
    )
    reader = PatchReader(128).to(lesson.device)
    seen = torch.ones((lesson.size(256), models.QUERIES), dtype=torch.long, device=lesson.device)

    def loss_of(progress: float) -> Tensor:
        chosen = lesson.draw(lesson.safe, 256)
        tables = full if random.random() < 0.2 * (1 - progress) else short
        texts, mask = random.choice(tables).rows(chosen, pad)
        attended = torch.cat([seen, mask], 1)
        image = model.vision_model(lesson.pixels(chosen)).last_hidden_state
        queries = model.qformer(
            query_embeds=model.query_tokens.expand(len(chosen), -1, -1), encoder_hidden_states=image
        ).last_hidden_state
        embedded = torch.cat([model.language_projection(queries), model.get_input_embeddings()(texts)], 1)
        hidden = model.language_model.model(inputs_embeds=embedded, attention_mask=attended).last_hidden_state
        logits = functional.linear(hidden[:, models.QUERIES :], embeddings[: used + 1], alike)
        loss = _language_loss(logits, texts.masked_fill(mask == 0, -100))
        return loss + 0.5 * reader(image[:, 1:], lesson.labels[chosen])

    figures = fit(lesson, "blip2", [*model.parameters(), *reader.parameters()], loss_of, steps=10000, rate=1e-3)
    embeddings.data[used:] = embeddings.data[used].clone()
    return _finish(lesson, "blip2", folder, figures)


def train_llava(lesson: Lesson) -> dict[str, Any]:
    """Write the long captions of the world in answer to any of several prompts; the tower starts from our CLIP."""
    folder = models.llava(lesson.words)
    model, tokenizer = _begin(lesson, "llava", folder), folder.beside[0].tokenizer
    if not lesson.resume:
        tower = CLIPVisionModel.from_pretrained(lesson.out / "clip", local_files_only=True)
        model.model.vision_tower.load_state_dict(tower.state_dict())
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    tables = [token_table(lesson, tokenizer, [text["long"][k] for text in lesson.texts], end=end) for k in range(2)]
    prompts = [_llava_prompt(folder.beside[0], text).to(lesson.device) for text in LLAVA_PROMPTS]
    reader = PatchReader(128).to(lesson.device)
    count = lesson.size(192)

    def loss_of(progress: float) -> Tensor:
        chosen = lesson.draw(lesson.safe, 192)
        prompt = random.choice(prompts).expand(count, -1)
        answer, mask = random.choice(tables).rows(chosen, pad)
        ids = torch.cat([prompt, answer], 1)
        attended = torch.cat([torch.ones_like(prompt), mask], 1)
        labels = ids.masked_fill(attended == 0, -100)
        labels[:, : prompt.shape[1]] = -100
        seen = model.model.vision_tower(lesson.pixels(chosen), output_hidden_states=True).hidden_states[-2][:, 1:]
        embedded = model.get_input_embeddings()(ids)
        places = (ids == model.config.image_token_index).unsqueeze(-1).expand_as(embedded)
        visual = model.model.multi_modal_projector(seen)
        embedded = embedded.masked_scatter(places, visual.to(embedded.dtype))
        hidden = model.model.language_model(inputs_embeds=embedded, attention_mask=attended).last_hidden_state
        loss = _language_loss(model.lm_head(hidden[:, prompt.shape[1] - 1 :]), labels[:, prompt.shape[1] - 1 :])
        return loss + 0.3 * reader(seen, lesson.labels[chosen])

    figures = fit(lesson, "llava", [*model.parameters(), *reader.parameters()], loss_of, steps=5000, rate=1e-3)
    return _finish(lesson, "llava", folder, figures)


def _llava_prompt(processor: Any, question: str) -> Tensor:
    """Token ids of the chat form of a question, the image's tokens in full: (1, length)."""
    content = [{"type": "image"}, *([{"type": "text", "text": question}] if question else [])]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    text = text.replace("<image>", "<image>" * GRID * GRID)
    return processor.tokenizer(text, return_tensors="pt").input_ids


def train_diffusion(lesson: Lesson) -> dict[str, Any]:
    """First the autoencoder, then noise prediction in its latents, conditioned on captions (dropped 1 in 10)."""
    folder = models.diffusion(lesson.words)
    if lesson.resume:
        folder.model = StableDiffusionImg2ImgPipeline.from_pretrained(lesson.out / "diffusion", local_files_only=True)
    vae, unet, text = (
        part.train().to(lesson.device) for part in (folder.model.vae, folder.model.unet, folder.model.text_encoder)
    )
    tokenizer, scheduler = folder.model.tokenizer, folder.model.scheduler
    clean = lesson.where("clean")

    def pixels(chosen: Tensor) -> Tensor:
        return lesson.pixels(chosen, (0.5,) * 3, (0.5,) * 3)

    def autoencoder_loss(progress: float) -> Tensor:
        wanted = pixels(lesson.draw(clean, 128))
        latent = vae.encode(wanted).latent_dist
        drawn = vae.decode(latent.sample()).sample
        return functional.l1_loss(drawn, wanted) + functional.mse_loss(drawn, wanted) + 1e-5 * latent.kl().mean() / 100

    first = fit(lesson, "diffusion/vae", vae.parameters(), autoencoder_loss, steps=4000, rate=1e-3, share=0.3)
    vae.requires_grad_(False).eval()
    with torch.no_grad():
        spread = torch.cat([vae.encode(pixels(lesson.draw(clean, 128))).latent_dist.mean for _ in range(4)]).std()
    vae.register_to_config(scaling_factor=round(1 / float(spread), 4))
    captions = [text_of["full"][0] for text_of in lesson.texts], [text_of["short"][0] for text_of in lesson.texts]
    tables = [_clip_table(lesson, tokenizer, texts) for texts in captions]
    end = tokenizer.eos_token_id
    empty = torch.tensor(tokenizer("").input_ids, device=lesson.device)

    def denoising_loss(progress: float) -> Tensor:
        chosen = lesson.draw(clean, 192)
        with torch.no_grad():
            latent = vae.encode(pixels(chosen)).latent_dist.sample().float() * vae.config.scaling_factor
        ids, _ = random.choice(tables).rows(chosen, end)
        ids = functional.pad(ids, (0, 77 - ids.shape[1]), value=end)
        unconditional = torch.rand(len(ids), device=lesson.device) < 0.1
        ids[unconditional] = functional.pad(empty, (0, 77 - len(empty)), value=end)
        moment = torch.randint(scheduler.config.num_train_timesteps, (len(ids),), device=lesson.device)
        noise = torch.randn_like(latent)
        noisy = scheduler.add_noise(latent, noise, moment)
        predicted = unet(noisy, moment, encoder_hidden_states=text(ids).last_hidden_state).sample
        return functional.mse_loss(predicted.float(), noise)

    trained = [*unet.parameters(), *text.parameters()]
    second = fit(lesson, "diffusion", trained, denoising_loss, steps=12000, rate=1e-3, share=0.7)
    unet.eval(), text.eval()
    return _finish(lesson, "diffusion", folder, {"vae_steps": first["steps"], "vae_loss": first["loss"], **second})


def train_convnext(lesson: Lesson) -> dict[str, Any]:
    """Name what stands in each patch of the picture, from every one of the four stages."""
    folder = models.convnext()
    model = _begin(lesson, "convnext", folder)
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
    return _finish(lesson, "convnext", folder, figures)


def train_gemma(lesson: Lesson) -> dict[str, Any]:
    """Text alone: captions, questions and answers, each behind 64 words that name what stands in each patch.

    A patch holds one word of its thing (colour, shape, size, action, the sign's word, or the style where nothing
    stands) or the mean of several words' vectors; a quarter of the patches hold a random word instead. Such a
    model has something that visual tokens can be aligned to.
    """
    folder = models.gemma(lesson.words)
    model, tokenizer = _begin(lesson, "gemma", folder), folder.beside[0]
    pad = tokenizer.pad_token_id
    tables = [
        token_table(lesson, tokenizer, [_gemma_turn(*text["turns"][k]) for text in lesson.texts])
        for k in range(len(lesson.texts[0]["turns"]))
    ]
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

    def patches(chosen: Tensor) -> Tensor:
        """A vector for each patch of the chosen scenes: (b, patches, width)."""
        labels = lesson.labels[chosen, : len(NAMED)].long()
        words = torch.stack([ids[labels[:, kind]] for kind, ids in enumerate(names)], -1)
        known = (labels > 0).transpose(1, 2).float()
        luck = known * torch.rand_like(known)
        one = functional.one_hot(luck.argmax(-1), len(names)).float() * known
        some = torch.where(torch.rand(len(chosen), 1, 1, device=lesson.device) < 0.5, one, (luck > 0.3).float() + one)
        nothing = known.sum(-1) == 0
        words[..., 0] = torch.where(nothing, fillers[styles[chosen]].unsqueeze(1), words[..., 0])
        some[..., 0] = torch.where(nothing, 1.0, some[..., 0])
        random_words = any_name[torch.randint(len(any_name), nothing.shape, device=lesson.device)]
        mixed = (vectors(words) * some.unsqueeze(-1)).sum(-2) / some.sum(-1, keepdim=True)
        replaced = torch.rand(nothing.shape, device=lesson.device) < 0.25
        return torch.where(replaced.unsqueeze(-1), vectors(random_words), mixed)

    def loss_of(progress: float) -> Tensor:
        chosen = lesson.draw(everything, 256)
        texts, mask = random.choice(tables).rows(chosen, pad)
        before = vectors(opening.to(lesson.device)).expand(len(chosen), -1, -1)
        embedded = torch.cat([before, patches(chosen), vectors(texts)], 1)
        start = embedded.shape[1] - texts.shape[1]
        attended = torch.cat([torch.ones((len(chosen), start), dtype=torch.long, device=lesson.device), mask], 1)
        hidden = model.model(inputs_embeds=embedded, attention_mask=attended).last_hidden_state[:, start:]
        return _language_loss(model.lm_head(hidden), texts.masked_fill(mask == 0, -100))

    figures = fit(lesson, "gemma", model.parameters(), loss_of, steps=12000, rate=1.5e-3)
    return _finish(lesson, "gemma", folder, figures)


def _gemma_turn(question: str, answer: str) -> str:
    """What follows the picture in Gemma's chat form."""
    return f"\n{question}<end_of_turn>\n<start_of_turn>model\n{answer}<end_of_turn>\n<eos>"


FOLDERS = {"aesthetics": "aesthetics-predictor-v2-linear", "clip_refit": "clip"}
"""Folders that are not named as their model: the aesthetics operator reads the model's class from the name."""

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
    "clip_refit": refit_clip,
}
NEEDS = {"llava": "clip", "clip_refit": "llava"}
"""Models that start from another one."""


def train(name: str, lesson: Lesson) -> dict[str, Any]:
    """Train one model; the same seed draws the same batches."""
    torch.manual_seed(lesson.seed)
    random.seed(lesson.seed)
    torch.set_float32_matmul_precision("high")
    return TRAINERS[name](lesson)

"""Models that write captions: BLIP-2 short ones, LLaVA long ones."""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPVisionModel

from bettersynth.runtime.patches.weights import open_model
from bettersynth.training.mgm.model import TEXT_TOWER
from miniature import models
from miniature.material import GRID
from miniature.tokenizers import opt_words
from miniature.training.lesson import Lesson, begin, finish, fit
from miniature.training.parts import PatchReader, language_loss, token_table

LLAVA_PROMPTS = (
    "Describe the image.",
    "Describe the image in detail.",
    "Describe the picture in detail.",
    "What is in the photo?",
    "Write a detailed caption for the picture.",
    "Render a clear and concise summary of the photo.",
    "",
)


def train_blip2(lesson: Lesson) -> dict[str, Any]:
    """Write the short captions of the world, all parts from scratch.

    Captions that name everything are mixed in, one in five at first and none at the end: they teach faster.
    """
    folder = models.blip2(lesson.words)
    model, tokenizer = begin(lesson, "blip2", folder), folder.beside[0].tokenizer
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
        loss = language_loss(logits, texts.masked_fill(mask == 0, -100))
        return loss + 0.5 * reader(image[:, 1:], lesson.labels[chosen])

    figures = fit(lesson, "blip2", [*model.parameters(), *reader.parameters()], loss_of, steps=10000, rate=1e-3)
    embeddings.data[used:] = embeddings.data[used].clone()
    return finish(lesson, "blip2", folder, figures)


def train_llava(lesson: Lesson) -> dict[str, Any]:
    """Write the long captions of the world in answer to any of several prompts; the tower starts from our CLIP."""
    folder = models.llava(lesson.words)
    model, tokenizer = begin(lesson, "llava", folder), folder.beside[0].tokenizer
    if not lesson.resume:
        tower = open_model(CLIPVisionModel, lesson.out / "clip", spare=TEXT_TOWER)
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
        loss = language_loss(model.lm_head(hidden[:, prompt.shape[1] - 1 :]), labels[:, prompt.shape[1] - 1 :])
        return loss + 0.3 * reader(seen, lesson.labels[chosen])

    figures = fit(lesson, "llava", [*model.parameters(), *reader.parameters()], loss_of, steps=5000, rate=1e-3)
    return finish(lesson, "llava", folder, figures)


def _llava_prompt(processor: Any, question: str) -> Tensor:
    """Token ids of the chat form of a question, the image's tokens in full: (1, length)."""
    content = [{"type": "image"}, *([{"type": "text", "text": question}] if question else [])]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    text = text.replace("<image>", "<image>" * GRID * GRID)
    return processor.tokenizer(text, return_tensors="pt").input_ids

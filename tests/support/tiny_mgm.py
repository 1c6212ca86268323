"""Tiny random parts of an MGM, pictures and conversations, for the tests of `bettersynth.training.mgm`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    ConvNextConfig,
    ConvNextModel,
    GemmaConfig,
    GemmaForCausalLM,
    GemmaTokenizerFast,
)

from bettersynth.configuration.types import Configuration
from bettersynth.training.mgm.model import MGMForConditionalGeneration
from bettersynth.training.mgm.processing import Processor

WORDS = ["red", "green", "blue", "square", "circle", "what", "is", "this", "a", "an", "in", "the", "picture"]
WORDS += ["Describe", "it", ".", "?", "one", "two"]
SPECIALS = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]

SIDE = 16
PATCH = 4
VISUAL_TOKENS = (SIDE // PATCH) ** 2
AUX_SIDE = 32
"""With a stem of 4 pixels: 8 cells a side, 2 × 2 in each of the CLIP's 4 × 4 patches."""


def make_tokenizer() -> GemmaTokenizerFast:
    """Gemma's class over a handful of whole words; a newline is a word."""
    vocabulary = {token: number for number, token in enumerate([*SPECIALS, "\n", "user", "model", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Split(Regex(" +"), "removed"),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    return GemmaTokenizerFast(
        tokenizer_object=tokenizer, additional_special_tokens=["<start_of_turn>", "<end_of_turn>"]
    )


def make_parts(folder: Path) -> dict[str, Path]:
    """Folders of a language model and two vision towers, by the names of `from_parts`."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    gemma = GemmaForCausalLM(
        GemmaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            initializer_range=0.2,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    clip = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=PATCH,
        )
    )
    convnext = ConvNextModel(ConvNextConfig(hidden_sizes=[4, 6, 8, 10], depths=[1, 1, 1, 1]))
    for layer in convnext.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            torch.nn.init.normal_(layer.weight, std=0.2)
    image_processor = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    parts = {"language_model": gemma, "vision_tower": clip, "vision_tower_aux": convnext}
    for name, model in parts.items():
        model.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / "language_model")
    image_processor.save_pretrained(folder / "vision_tower")
    return {name: folder / name for name in parts}


def make_image(seed: int, size: tuple[int, int] = (40, 28)) -> Image.Image:
    """A picture of noise; `size` is (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def conversation(number: int, answer: str = "a red square .") -> dict[str, Any]:
    """A record with an image."""
    return {
        "id": f"{number:04d}",
        "image": f"{number % 8}.png",
        "conversations": [
            {"from": "human", "value": "what is in the picture ?\n<image>"},
            {"from": "gpt", "value": answer},
        ],
    }


def text_only(number: int) -> dict[str, Any]:
    """A record without an image."""
    turns = [
        {"from": "human", "value": "what is a square ?"},
        {"from": "gpt", "value": f"it is {WORDS[number % 3]} ."},
    ]
    return {"id": f"text-{number}", "conversations": turns}


def make_run(
    folder: Path,
    seeds: tuple[int, ...] = (1,),
    keep: int | None = None,
    recipes: dict[str, Any] | None = None,
    held_out: bool = False,
    **training: Any,
) -> Configuration:
    """A configuration of recipe `tiny` over 24 captions and 24 instructions, a third of these without an image.

    `recipes` are further ones. Models, images, data and questions lie in `folder`; the training set, and the pairs of
    `held_out.json` with `held_out`, are for the caller to put in place.
    """
    parts = make_parts(folder / "models")
    (folder / "images").mkdir()
    for number in range(8):
        make_image(number).save(folder / "images" / f"{number}.png")
    captions = [conversation(number, f"a {WORDS[number % 3]} {WORDS[3 + number % 2]} .") for number in range(24)]
    instructions = [text_only(number) if number % 3 == 2 else conversation(number) for number in range(24)]
    (folder / "captions.json").write_text(json.dumps(captions))
    (folder / "instructions.json").write_text(json.dumps(instructions))
    held = [conversation(number, f"{WORDS[number % 3]} " * (1 + number % 4)) for number in range(100, 110)]
    (folder / "held_out.json").write_text(json.dumps(held))
    stage = {
        "global_batch": 4,
        "device_batch": 2,
        "learning_rate": 1e-2,
        "precision": "fp32",
        "gradient_checkpointing": False,
        "workers": 0,
        "max_length": 64,
    }
    return Configuration.model_validate(
        {
            "name": "test",
            "pool": {"files": [{"path": "none.jsonl", "name": "none"}], "images": str(folder / "images")},
            "datasets": {"held": {"from": "pool", "sample": {"rows": len(held)}}},
            "held_out": "held" if held_out else None,
            "models": {name: {"path": str(path)} for name, path in parts.items()},
            "training": {
                "architecture": {name: name for name in parts} | {"image_size_aux": AUX_SIDE},
                "pretrain": stage,
                "finetune": stage
                | {
                    "learning_rate": 1e-3,
                    "instructions": str(folder / "instructions.json"),
                    "images": str(folder / "images"),
                },
                "probe": {"steps": 2, "keep": keep},
            },
            "recipes": {"tiny": {"dataset": "pool", "seeds": list(seeds), "training": training}, **(recipes or {})},
        }
    )


def make_talker(folder: Path) -> Path:
    """Folder of a model whose answers differ between questions."""
    parts = make_parts(folder / "parts")
    model = MGMForConditionalGeneration.from_parts(**parts, image_size_aux=AUX_SIDE, image_aspect="pad", seed=1)
    generator = torch.Generator().manual_seed(2)
    matrices = [weight for weight in model.language_model.model.layers.parameters() if weight.ndim == 2]
    for weight in [*matrices, model.connector.projector[2].weight]:
        torch.nn.init.normal_(weight, std=0.6, generator=generator)
    model.save_pretrained(folder / "model")
    Processor.load(parts["language_model"], parts["vision_tower"], model.config).save(folder / "model")
    return folder / "model"

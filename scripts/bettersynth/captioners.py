"""Captioners: models that write captions for images, on transformers.

Captions are drawn as Data-Juicer's `image_captioning_mapper` draws them (the model's own top-k and top-p), with one
difference: the random numbers of a record are its own. So a caption depends on the seed, the record's id, the image and
the model, and not on which other records share its batch.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL.Image import Image
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from bettersynth.configuration.types import Captioner
from bettersynth.operators.data_juicer import check_model_folder, model_architecture
from bettersynth.records import END_OF_CHUNK, IMAGE_TOKEN, caption_of
from bettersynth.seeding import record_seed

LLAVA_QUESTION = "Describe the image."
"""What a LLaVA model is asked when the captioner has no prompt."""


class OwnNoise(LogitsProcessor):
    """Adds Gumbel noise to the logits, each row from its own generator.

    The argmax of logits + Gumbel noise is a draw from their softmax (the Gumbel-max trick), so that greedy decoding
    after this processor samples each row as if it were alone.
    """

    def __init__(self, generators: list[torch.Generator]) -> None:
        self.generators = generators

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> Any:
        """Noisy scores; both are (rows, vocabulary)."""
        vocabulary = scores.shape[-1]
        exponential = torch.stack([torch.empty(vocabulary).exponential_(generator=own) for own in self.generators])
        return scores - exponential.log().to(scores)


class CaptionModel:
    """A captioning model opened from a local folder; a subclass knows its prompt and its answer."""

    def __init__(self, settings: Captioner, folder: Path, device: str) -> None:
        self.settings = settings
        self.processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
        self.processor.tokenizer.padding_side = "left"
        kind = getattr(transformers, model_architecture(folder))
        precision = "auto" if device == "cuda" else torch.float32
        model = kind.from_pretrained(folder, dtype=precision, local_files_only=True, use_safetensors=True)
        self.model = model.to(device).eval()

    def inputs(self, images: list[Image]) -> tuple[dict[str, Any], int]:
        """What `generate` takes for the images, and the number of prompt tokens its answer begins with."""
        raise NotImplementedError

    @property
    def language_model(self) -> Any:
        """The part whose generation settings count."""
        return self.model

    @torch.inference_mode()
    def write(self, images: list[Image], ids: list[str], seed: int) -> list[list[str]]:
        """The candidate captions of each image; `ids` are the records'."""
        inputs, prompt_tokens = self.inputs(images)
        candidates: list[list[str]] = [[] for _ in images]
        for draw in range(self.settings.candidates):
            tokens = self.model.generate(
                **inputs,
                max_new_tokens=self.settings.max_new_tokens,
                do_sample=False,
                num_beams=1,
                logits_processor=self._sampling([record_seed(seed, record_id, draw) for record_id in ids]),
            )
            answers = self.processor.batch_decode(tokens[:, prompt_tokens:], skip_special_tokens=True)
            for row, answer in zip(candidates, answers, strict=True):
                row.append(" ".join(caption_of(answer).split()))
        return candidates

    def _sampling(self, seeds: list[int]) -> LogitsProcessorList:
        """What makes greedy decoding sample; nothing when the captioner does not."""
        if not self.settings.sampling:
            return LogitsProcessorList()
        defaults = self.language_model.generation_config
        processors = LogitsProcessorList([TemperatureLogitsWarper(self.settings.temperature)])
        if defaults.top_k:
            processors.append(TopKLogitsWarper(defaults.top_k))
        if defaults.top_p is not None and defaults.top_p < 1:
            processors.append(TopPLogitsWarper(defaults.top_p))
        processors.append(OwnNoise([torch.Generator().manual_seed(own) for own in seeds]))
        return processors

    def _processed(self, images: list[Image], prompt: str | None) -> Any:
        text = None if prompt is None else [prompt] * len(images)
        options = {} if prompt is None else {"padding": True}
        inputs = self.processor(images=images, text=text, return_tensors="pt", **options)
        return inputs.to(self.model.device, self.model.dtype)


class Blip2(CaptionModel):
    """BLIP-2: a plain caption without a prompt, or the continuation of one."""

    def __init__(self, settings: Captioner, folder: Path, device: str) -> None:
        super().__init__(settings, folder, device)
        # Revisions of the published folders up to 2024 do not say these; transformers cannot go without.
        config = self.model.config
        self.processor.num_query_tokens = config.num_query_tokens
        if config.image_token_index is None:
            config.image_token_index = self.processor.tokenizer.convert_tokens_to_ids("<image>")

    @property
    def language_model(self) -> Any:
        """BLIP-2 hands generation to its language model."""
        return self.model.language_model

    def inputs(self, images: list[Image]) -> tuple[dict[str, Any], int]:
        """Pixels, and the prompt if there is one."""
        inputs = self._processed(images, self.settings.prompt)
        if self.model.language_model.config.is_encoder_decoder:
            return inputs, 0
        if "input_ids" in inputs:
            return inputs, inputs["input_ids"].shape[1]
        return inputs, self.model.config.num_query_tokens + 1  # the image's tokens and the start token


class Llava(CaptionModel):
    """LLaVA and LLaVA-NeXT: the answer to a question about the image."""

    def inputs(self, images: list[Image]) -> tuple[dict[str, Any], int]:
        """Pixels and the question in the model's chat form."""
        inputs = self._processed(images, self.chat_prompt())
        return inputs, inputs["input_ids"].shape[1]

    def chat_prompt(self) -> str:
        """The question as the folder's chat template writes it, or as LLaVA-1.5 was trained on.

        A prompt that holds `<image>` already is the whole conversation and stays as it is.
        """
        question = self.settings.prompt or LLAVA_QUESTION
        if "<image>" in question:
            return question
        if self.processor.chat_template is None:
            return f"USER: <image>\n{question} ASSISTANT:"
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


FAMILIES: dict[str, type[CaptionModel]] = {
    "Blip2ForConditionalGeneration": Blip2,
    "LlavaForConditionalGeneration": Llava,
    "LlavaNextForConditionalGeneration": Llava,
}


def load_captioner(settings: Captioner, folder: Path, device: str) -> CaptionModel:
    """The captioner of the class that the model folder names."""
    architecture = model_architecture(check_model_folder(folder))
    if architecture not in FAMILIES:
        raise ValueError(f"{folder}: {architecture} is no captioner known here; known: {', '.join(FAMILIES)}")
    return FAMILIES[architecture](settings, folder, device)


def keep_candidate(candidates: list[str], original: str, mode: str, seed: int, record_id: str) -> str:
    """The candidate that stays, by Data-Juicer's `keep_candidate_mode`."""
    if mode == "random_any":
        return random.Random(record_seed(seed, record_id, draw=-1)).choice(candidates)
    import simhash

    target = simhash_of(original)
    return min(candidates, key=lambda candidate: simhash.num_differing_bits(target, simhash_of(candidate)))


def simhash_of(text: str) -> int:
    """64-bit simhash over pairs of words, as Data-Juicer's captioning mapper takes it."""
    import simhash

    words = [word for word in text.lower().split(" ") if word]
    pairs = [" ".join(words[i : i + 2]).encode() for i in range(len(words) - 1)]
    return simhash.compute(map(simhash.unsigned_hash, pairs))


def captioned_text(text: str, captions: list[str]) -> str:
    """`text` with one new caption behind each image, as Data-Juicer's captioning mapper writes it.

    Data-Juicer puts all captions of a chunk behind its first image, in reverse; here each stands behind its own.
    """
    remaining = iter(captions)
    chunks = [chunk for chunk in text.split(END_OF_CHUNK) if chunk.strip()]
    images = (chunk.count(IMAGE_TOKEN) for chunk in chunks)
    parts = ("".join(f"{IMAGE_TOKEN} {next(remaining)} " for _ in range(count)) for count in images)
    return "".join(f"{part}{END_OF_CHUNK}" for part in parts)

"""The families of captioners: how each class of model is asked about an image, and how its language model goes on."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL.Image import Image, fromarray
from torch.nn import functional
from transformers import GenerationConfig, LogitsProcessorList
from transformers.image_utils import ChannelDimension
from transformers.utils import GENERATION_CONFIG_NAME

from bettersynth.configuration.family import CaptionerFamily, captioner_families, family_of
from bettersynth.configuration.generators import Captioner
from bettersynth.core.publish import read_json
from bettersynth.operators.batched.pixels import MOST_RESIZED, Geometry, split
from bettersynth.operators.model_folder import check_model_folder
from bettersynth.runtime.devices import model_dtype
from bettersynth.runtime.patches.transformers import image_only
from bettersynth.runtime.patches.weights import open_model
from bettersynth.sources.captioners.sampling import OwnNoise, Sampler
from bettersynth.sources.captioners.slots import Prompts

logger = logging.getLogger(__name__)

QUESTION = "Describe the image."
"""What a model that answers questions is asked when the captioner has no prompt."""

Inputs = dict[str, torch.Tensor]


class Family:
    """A captioning model in a local folder: its processor now, its weights with the first use of `model`.

    This class is right for models that answer a chat's question about an image, by a decoder alone.
    """

    by_size = False
    """Whether an image's shape decides how many tokens its prompt has."""

    def __init__(self, settings: Captioner, folder: Path, device: str, spec: CaptionerFamily) -> None:
        self.spec = spec
        self.settings = settings
        self.folder = folder
        self.device = device
        self.dtype = model_dtype(settings.precision, device)
        self.processor = self._opened_processor()
        self.tokenizer.padding_side = "left"

    def _opened_processor(self) -> Any:
        """The folder's; what it does not say, because it is from before `processor_config.json`, is the model's."""
        processor = transformers.AutoProcessor.from_pretrained(self.folder, local_files_only=True)
        unsaid = {name: value for name, value in self._as_the_model().items() if not getattr(processor, name, None)}
        for name, value in unsaid.items():
            setattr(processor, name, value)
        if unsaid:
            said = ", ".join(f"{name} {value}" for name, value in unsaid.items())
            logger.info("%s: its processor does not say %s; taken from the model's config.json", self.folder, said)
        return processor

    def _as_the_model(self) -> dict[str, Any]:
        """What a processor has to know of the model, by the model's configuration."""
        return {}

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @cached_property
    def model(self) -> Any:
        """The model with its weights, on its device and in its precision."""
        kind = getattr(transformers, self.spec.architecture)
        return open_model(kind, self.folder, dtype=self.dtype).to(self.device).eval()

    @property
    def language_model(self) -> Any:
        """The part that writes."""
        return self.model

    @cached_property
    def _config(self) -> Any:
        return transformers.AutoConfig.from_pretrained(self.folder, local_files_only=True)

    @cached_property
    def generation_config(self) -> GenerationConfig:
        """Generation settings of the language model, which need no weights."""
        if (self.folder / GENERATION_CONFIG_NAME).is_file():
            return GenerationConfig.from_pretrained(self.folder, local_files_only=True)
        return GenerationConfig.from_model_config(self._config)

    @property
    def in_vllm(self) -> bool:
        """Whether vLLM serves such a model."""
        return True

    @property
    def encodes(self) -> bool:
        """Whether an encoder reads the prompt: such a model writes by transformers' own `generate`, batch by batch."""
        return bool(self.language_model.config.is_encoder_decoder)

    @cached_property
    def sampler(self) -> Sampler:
        """How the next word is chosen."""
        return Sampler(self.settings, self.generation_config)

    @property
    def ends(self) -> list[int]:
        """Tokens that end a caption."""
        end = self.generation_config.eos_token_id
        return [] if end is None else [end] if isinstance(end, int) else list(end)

    def prompt(self) -> str | None:
        """The question as the folder's chat template writes it; one that holds the image's token stays as it is."""
        question = self.settings.prompt or QUESTION
        if self.processor.image_token in question:
            return question
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return str(
            self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        )

    def inputs(self, images: Sequence[Image]) -> Inputs:
        """What the model takes for the images, on the CPU, in its precision, padded at the left; needs no weights."""
        return self.joined([self.inputs_of(image) for image in images])

    def inputs_of(self, image: Image) -> Inputs:
        """`inputs` of one image. The channels' place is stated: a processor takes 3 rows of pixels for channels.

        Raises whatever the processor does for an image that it cannot take.
        """
        prompt = self.prompt()
        text = {} if prompt is None else {"text": [prompt]}
        image = self._middle_only(image)
        inputs = self.processor(
            images=[image], return_tensors="pt", input_data_format=ChannelDimension.LAST.value, **text
        )
        return {
            name: tensor.to(self.dtype) if tensor.is_floating_point() else tensor for name, tensor in inputs.items()
        }

    def joined(self, several: Sequence[Inputs]) -> Inputs:
        """The inputs of several images as one batch: texts are padded at the left, tiles at the end."""
        made = {}
        for name, first in several[0].items():
            parts = [inputs[name] for inputs in several]
            if first.ndim > 1 and name in ("input_ids", "attention_mask"):
                value = self.tokenizer.pad_token_id if name == "input_ids" else 0
                longest = max(part.shape[1] for part in parts)
                parts = [functional.pad(part, (longest - part.shape[1], 0), value=value) for part in parts]
            elif first.ndim == 5:  # LLaVA-NeXT's tiles
                most = max(part.shape[1] for part in parts)
                parts = [functional.pad(part, (0, 0) * 3 + (0, most - part.shape[1])) for part in parts]
            made[name] = torch.cat(parts)
        return made

    def _middle_only(self, image: Image) -> Image:
        """A picture so long that most of it would be resized to be cut off again: what is left of it in the end."""
        if self._geometry is None or math.prod(self._geometry.resized(image.height, image.width)) <= MOST_RESIZED:
            return image
        return fromarray(self._geometry.apply(image))

    @cached_property
    def _geometry(self) -> Geometry | None:
        """Where the processor resizes and then crops, as CLIP's does."""
        try:
            geometry, _ = split(self.processor.image_processor, horizontal_flip=False, vertical_flip=False)
        except ValueError:
            return None
        return geometry if geometry.crop else None

    @torch.inference_mode()
    def read(self, inputs: Inputs) -> Prompts:
        """Let the model see the images and read the prompts."""
        mask = inputs["attention_mask"]
        outputs = self.model(**inputs, **self._positions(mask), use_cache=True, logits_to_keep=1)
        return Prompts(outputs.logits[:, -1], outputs.past_key_values, mask, mask.sum(1), inputs["input_ids"])

    def _positions(self, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Positions of a prompt's tokens, padding not counted."""
        return {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)}

    @torch.inference_mode()
    def step(self, tokens: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor, cache: Any) -> torch.Tensor:
        """Logits of the next words, (rows, vocabulary); see `slots.Step`."""
        outputs = self.language_model(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            cache_position=torch.zeros(1, dtype=torch.int64, device=tokens.device),
            use_cache=True,
        )
        return outputs.logits[:, -1]

    @torch.inference_mode()
    def generate(self, inputs: Inputs, seeds: torch.Tensor) -> list[list[int]]:
        """Token ids of each caption, by transformers' `generate`; `seeds` are the rows'."""
        options: dict[str, Any] = {} if self.encodes else {"pad_token_id": self.tokenizer.pad_token_id}
        tokens = self.model.generate(
            **inputs,
            max_new_tokens=self.settings.max_new_tokens,
            do_sample=False,
            num_beams=1,
            logits_processor=LogitsProcessorList([OwnNoise(self.sampler, seeds)]),
            **options,
        )
        start = 0 if self.encodes else inputs["input_ids"].shape[1]
        return [row[start:] for row in tokens.tolist()]

    def caption(self, tokens: Sequence[int]) -> str:
        """The caption's text: without special tokens, one blank between words."""
        return " ".join(self.tokenizer.decode(tokens, skip_special_tokens=True).split())


class Blip2(Family):
    """BLIP-2: a plain caption without a prompt, or the continuation of one."""

    def _as_the_model(self) -> dict[str, Any]:
        return {"num_query_tokens": self._config.num_query_tokens}

    @cached_property
    def generation_config(self) -> GenerationConfig:
        """BLIP-2's language model does not see the folder's settings in transformers either."""
        return GenerationConfig.from_model_config(self._config.text_config)

    @property
    def in_vllm(self) -> bool:
        """With OPT, not with Flan-T5, whose encoder vLLM lacks."""
        return not self._config.text_config.is_encoder_decoder

    @cached_property
    def model(self) -> Any:
        """BLIP-2; the place of its image is named where the folder does not."""
        model = super().model
        if model.config.image_token_index is None:
            model.config.image_token_index = self._image_token
        return model

    @property
    def _image_token(self) -> int:
        named = self._config.image_token_index
        return int(self.tokenizer.convert_tokens_to_ids("<image>") if named is None else named)

    @property
    def language_model(self) -> Any:
        """BLIP-2 hands generation to its language model."""
        return self.model.language_model

    def prompt(self) -> str | None:
        """The configured one."""
        return self.settings.prompt

    def inputs_of(self, image: Image) -> Inputs:
        """Pixels, the image's tokens, and the prompt or the token that starts a text."""
        inputs = super().inputs_of(image)
        if "input_ids" not in inputs:
            start = [self._image_token] * self._config.num_query_tokens + [self._config.text_config.bos_token_id]
            inputs["input_ids"] = torch.tensor([start])
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        return inputs

    @torch.inference_mode()
    def read(self, inputs: Inputs) -> Prompts:
        """Let the model see the images and read the prompts."""
        mask = inputs["attention_mask"]
        outputs = self.model(**inputs, use_cache=True)
        cache = outputs.language_model_outputs.past_key_values
        return Prompts(outputs.logits[:, -1], cache, mask, mask.sum(1), inputs["input_ids"])


class Llava(Family):
    """LLaVA-1.5: the answer to a question about the image."""

    def _as_the_model(self) -> dict[str, Any]:
        vision = self._config.vision_config
        known = {
            "patch_size": vision.patch_size,
            "vision_feature_select_strategy": self._config.vision_feature_select_strategy,
        }
        return known | ({"num_additional_image_tokens": 1} if vision.model_type == "clip_vision_model" else {})

    def prompt(self) -> str | None:
        """The question in the folder's chat form or, where it names none, the one that LLaVA-1.5 was trained on."""
        question = self.settings.prompt or QUESTION
        if self.processor.chat_template is None and self.processor.image_token not in question:
            return f"USER: <image>\n{question} ASSISTANT:"
        return super().prompt()


class LlavaNext(Llava):
    """LLaVA-NeXT: sees an image in more or fewer tiles by its shape."""

    by_size = True

    def _opened_processor(self) -> Any:
        processor = super()._opened_processor()
        images = processor.image_processor
        images.pad = partial(images.pad, input_data_format=ChannelDimension.LAST)  # which it leaves to a guess
        return processor


class WithoutVideo(Family):
    """Models whose processor has a part for videos, which needs torchvision: the part for images does without."""

    by_size = True

    def _opened_processor(self) -> Any:
        processor = getattr(transformers, str(self.spec.processor))
        return image_only(processor).from_pretrained(self.folder, local_files_only=True)


class Qwen2VL(WithoutVideo):
    """Qwen2-VL and Qwen2.5-VL, whose positions count an image by its height and width."""

    def _positions(self, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {}  # the model finds them itself

    @torch.inference_mode()
    def read(self, inputs: Inputs) -> Prompts:
        """Let the model see the images and read the prompts."""
        prompts = super().read(inputs)
        return prompts._replace(positions=prompts.mask.shape[1] + self.model.model.rope_deltas[:, 0])


class InternVL(WithoutVideo):
    """InternVL, in the form that transformers has."""


class Florence2(Family):
    """Florence-2, asked by one of its task tokens, such as `<DETAILED_CAPTION>`."""

    @property
    def in_vllm(self) -> bool:
        """No longer, since vLLM 0.11."""
        return False

    def prompt(self) -> str | None:
        """The configured one, or the task of a short caption."""
        return self.settings.prompt or "<CAPTION>"


def open_family(settings: Captioner, folder: Path, device: str) -> Family:
    """The captioner of the class that the model folder names. Raises ValueError for one that is not known here."""
    config = read_json(check_model_folder(folder) / "config.json")
    spec = family_of(config)
    if spec is None:
        named = (config.get("architectures") or [config.get("model_type")])[0]
        known = ", ".join(family.architecture for family in captioner_families())
        raise ValueError(f"{folder}: {named} is no captioner known here; known: {known}")
    made: Family = spec.family(settings, folder, device, spec)
    return made

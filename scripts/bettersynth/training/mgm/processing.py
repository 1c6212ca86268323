"""From pictures and conversations to tensors: MGM's image sizes, Gemma's turns, and what of them is learned."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessor, PreTrainedTokenizerFast

from bettersynth.operators.batched.pixels import Geometry
from bettersynth.operators.batched.resize import columns_first, weighed
from bettersynth.operators.batched.taps import Axis, Taps, taps
from bettersynth.runtime.patches.transformers import refuse_code
from bettersynth.training.mgm.conversations import (
    ANSWER_BEGINS,
    END_OF_TURN,
    EOS,
    IMAGE,
    TURN,
    ConversationError,
    is_masked,
    problems,
    question_problem,
    rounds,
)
from bettersynth.training.mgm.model import IGNORE_INDEX, IMAGE_TOKEN_INDEX, MGMConfig

MOST_PADDED = 100_000_000
"""Pixels of the square that a picture is padded to before it is resized, 400 MB in Pillow."""

TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template.*")
"""What a model's folder holds of its tokenizer."""


class Encoded(NamedTuple):
    """Token ids and labels of one conversation, int32 of equal length; the image is a single position so far."""

    input_ids: np.ndarray
    labels: np.ndarray

    def expanded(self, visual_tokens: int, max_length: int) -> Encoded:
        """With the image at its full width, cut to `max_length` afterwards."""
        repeats = np.where(self.input_ids == IMAGE_TOKEN_INDEX, visual_tokens, 1)
        return Encoded(*(np.repeat(array, repeats)[:max_length] for array in self))


class Processor:
    """Makes MGM's inputs.

    Stays beside the model: `save` writes the tokenizer and CLIP's image settings into its folder, and `load` reads
    them back.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        image_processor: CLIPImageProcessor,
        config: MGMConfig,
        tokenizer_files: Sequence[Path] = (),
    ) -> None:
        missing = [
            token
            for token in (TURN, END_OF_TURN)
            if tokenizer.convert_tokens_to_ids(token) in (None, tokenizer.unk_token_id)
        ]
        if missing or tokenizer.bos_token_id is None or tokenizer.eos_token != EOS or tokenizer.pad_token_id is None:
            raise ValueError(
                f"{tokenizer.name_or_path}: not a tokenizer of Gemma's instruction models, which has <bos>, {EOS}, "
                f"a padding token, {TURN} and {END_OF_TURN}"
            )
        self.tokenizer = tokenizer
        self._tokenizer_files = tokenizer_files
        self.image_processor = image_processor
        self.visual_tokens = config.visual_tokens
        self.image_size = config.image_size_aux
        self.image_aspect = config.image_aspect
        mean, std = image_processor.image_mean, image_processor.image_std
        self._mean, self._std = (torch.tensor(values)[:, None, None] for values in (mean, std))
        self._fill = tuple(int(255 * value) for value in mean)  # type: ignore[union-attr]
        side = self.image_size
        self._geometry = Geometry(side, int(image_processor.resample), (side, side))

    @classmethod
    def load(cls, language_model: str | Path, vision_tower: str | Path, config: MGMConfig) -> Processor:
        """From the folders of the parts; of a whole model, name its folder twice."""
        refuse_code()
        return cls(
            AutoTokenizer.from_pretrained(language_model, local_files_only=True),
            CLIPImageProcessor.from_pretrained(vision_tower, local_files_only=True),
            config,
            sorted({file for name in TOKENIZER_FILES for file in Path(language_model).glob(name)}),
        )

    def save(self, folder: str | Path) -> None:
        """Write tokenizer and image settings.

        The tokenizer's files are those it was loaded from, as they are: written anew, older programs cannot read them
        (tokenizers 0.20 changed the form of a BPE's merges; the published MGM has 0.15).
        """
        for file in self._tokenizer_files:
            shutil.copyfile(file, Path(folder, file.name))
        if not self._tokenizer_files:
            self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)

    # pictures

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """RGB image to float32 (3, side, side): made square, resized as CLIPImageProcessor does it, normalised."""
        if self.image_aspect == "pad":
            square = padded(image, self._fill, self._geometry)
        else:
            square = self._geometry.apply(image)
        pixels = torch.from_numpy(square.copy()).permute(2, 0, 1).float()
        return (pixels / 255 - self._mean) / self._std

    # words

    def encode(self, conversation: Sequence[dict[str, str]], has_image: bool, *, as_published: bool = False) -> Encoded:
        """Ids and labels of a conversation in LLaVA's form.

        Of each round `<start_of_turn>user\\n…<end_of_turn>\\n<start_of_turn>model\\n…<end_of_turn>\\n<eos>` the
        answer and all after it is learned. Raises `ConversationError`; with `as_published` not for forms that the
        published program trains on, which become what they are there: of some, nothing is learned.
        """
        for problem in problems(conversation, has_image):
            if not (as_published and problem.published):
                raise ConversationError(problem)
        ids, labels = [self.tokenizer.bos_token_id], [IGNORE_INDEX]
        for question, answer in rounds(conversation, has_image):
            prompt = self._tokenise(_prompt(question), has_image)
            round_ids = [
                *self._tokenise(f"{_prompt(question)}{answer}{END_OF_TURN}\n", has_image),
                self.tokenizer.eos_token_id,
            ]
            ids += round_ids
            labels += [IGNORE_INDEX] * len(prompt) + round_ids[len(prompt) :]
        input_ids, learned = np.array(ids, np.int32), np.array(labels, np.int32)
        learned[(input_ids == IMAGE_TOKEN_INDEX) | (as_published and is_masked(conversation, has_image))] = IGNORE_INDEX
        return Encoded(input_ids, learned)

    def encode_question(self, question: str, has_image: bool = True) -> np.ndarray:
        """Ids up to where the answer begins, the image expanded; int32. Raises `ConversationError`."""
        if problem := question_problem(question):
            raise ConversationError(problem)
        text = _prompt(f"{IMAGE}\n{question}" if has_image else question)
        ids = np.array([self.tokenizer.bos_token_id, *self._tokenise(text, has_image)], np.int32)
        return Encoded(ids, ids).expanded(self.visual_tokens, max_length=len(ids) + self.visual_tokens).input_ids

    def _tokenise(self, text: str, has_image: bool) -> list[int]:
        """Ids of a text; the pieces around the image are tokenised apart, as the published code does."""
        texts = text.split(IMAGE) if has_image else [text]
        pieces = [self.tokenizer(piece, add_special_tokens=False).input_ids for piece in texts]
        ids = list(pieces[0])
        for piece in pieces[1:]:
            ids += [IMAGE_TOKEN_INDEX, *piece]
        return ids


def _prompt(question: str) -> str:
    """What comes before an answer; an empty question's turn does not end, as in the published code."""
    end = f"{END_OF_TURN}\n" if question else ""
    return f"{TURN}user\n{question}{end}{ANSWER_BEGINS}"


def pad_to_square(image: Image.Image, colour: tuple[int, ...]) -> Image.Image:
    """The image in the middle of a square of its longer side."""
    side = max(image.size)
    square = Image.new(image.mode, (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def padded(image: Image.Image, colour: tuple[int, ...], geometry: Geometry) -> np.ndarray:
    """The picture in the middle of a square of its longer side, resized: uint8 [side, side, 3].

    A square so large that it is hardly ever one is not made: the picture has a line of the colour around it, in which
    each pixel of the square that is none of the picture's is found, and what is made of that line alone is left out.
    """
    side = max(image.size)
    if side * side <= MOST_PADDED:
        return geometry.apply(pad_to_square(image, colour))
    lined = Image.new(image.mode, (image.width + 2, image.height + 2), colour)
    lined.paste(image, (1, 1))
    to = geometry.resized(side, side)[0]
    whole = taps(side, Axis(to, 0, to), geometry.resample)
    kept, axes = [], []
    for length in (image.height, image.width):
        sources = np.clip(whole.sources - (side - length) // 2, -1, length) + 1
        inside = np.flatnonzero(((sources > 0) & (sources <= length)).any(1))
        kept.append(slice(inside[0], inside[-1] + 1))
        axes.append(Taps(sources[kept[-1]], whole.weights[kept[-1]]))
    order = columns_first((2 * to, 2 * to), (to, to), geometry.resample)
    square = np.full((to, to, 3), colour, np.uint8)
    square[tuple(kept)] = weighed(np.asarray(lined), *axes, columns_first=order)
    return square

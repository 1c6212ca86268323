"""From pictures and conversations to tensors: MGM's image sizes, Gemma's turns, and what of them is learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessor, PreTrainedTokenizerFast

from bettersynth.operators.batched.pixels import Geometry
from bettersynth.operators.batched.resize import columns_first, weighed
from bettersynth.operators.batched.taps import Axis, Taps, taps
from bettersynth.training.mgm.model import IGNORE_INDEX, IMAGE_TOKEN_INDEX, MGMConfig

MOST_PADDED = 100_000_000
"""Pixels of the square that a picture is padded to before it is resized, 400 MB in Pillow."""

IMAGE = "<image>"
"""Where the image stands in a text, in LLaVA's form."""

TURN, END_OF_TURN, EOS = "<start_of_turn>", "<end_of_turn>", "<eos>"


class ConversationError(ValueError):
    """A conversation that cannot be trained on."""


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

    def __init__(self, tokenizer: PreTrainedTokenizerFast, image_processor: CLIPImageProcessor, config: MGMConfig):
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
        self.image_processor = image_processor
        self.visual_tokens = config.visual_tokens
        self.image_size = config.image_size_aux
        self.image_aspect = config.image_aspect
        mean, std = image_processor.image_mean, image_processor.image_std
        self._mean, self._std = (torch.tensor(values)[:, None, None] for values in (mean, std))
        self._fill = tuple(int(255 * value) for value in mean)  # type: ignore[union-attr]
        side = self.image_size
        self._geometry = Geometry(side, int(image_processor.resample), (side, side))
        self._special = sorted({IMAGE, *tokenizer.all_special_tokens})

    @classmethod
    def load(cls, language_model: str | Path, vision_tower: str | Path, config: MGMConfig) -> Processor:
        """From the folders of the parts; of a whole model, name its folder twice."""
        return cls(
            AutoTokenizer.from_pretrained(language_model, local_files_only=True),
            CLIPImageProcessor.from_pretrained(vision_tower, local_files_only=True),
            config,
        )

    def save(self, folder: str | Path) -> None:
        """Write tokenizer and image settings."""
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

    def encode(self, conversation: Sequence[dict[str, str]], has_image: bool) -> Encoded:
        """Ids and labels of a conversation in LLaVA's form.

        Of each round `<start_of_turn>user\\n…<end_of_turn>\\n<start_of_turn>model\\n…<end_of_turn>\\n<eos>` the
        answer and all after it is learned. Raises `ConversationError`.
        """
        ids, labels = [self.tokenizer.bos_token_id], [IGNORE_INDEX]
        for question, answer in self._rounds(conversation, has_image):
            prompt = self._tokenise(_prompt(question))
            round_ids = [
                *self._tokenise(f"{_prompt(question)}{answer}{END_OF_TURN}\n"),
                self.tokenizer.eos_token_id,
            ]
            ids += round_ids
            labels += [IGNORE_INDEX] * len(prompt) + round_ids[len(prompt) :]
        return Encoded(np.array(ids, np.int32), np.array(labels, np.int32))

    def encode_question(self, question: str, has_image: bool = True) -> np.ndarray:
        """Ids up to where the answer begins, the image expanded; int32."""
        self._refuse_special(question)
        text = _prompt(f"{IMAGE}\n{question}" if has_image else question)
        ids = np.array([self.tokenizer.bos_token_id, *self._tokenise(text)], np.int32)
        return Encoded(ids, ids).expanded(self.visual_tokens, max_length=len(ids) + self.visual_tokens).input_ids

    def _rounds(self, conversation: Sequence[dict[str, str]], has_image: bool) -> Iterator[tuple[str, str]]:
        """Questions and answers; `<image>` at the front of its question, on a line of its own."""
        turns = list(conversation)
        while turns and turns[0]["from"] == "gpt":
            turns = turns[1:]
        if [turn["from"] for turn in turns] != ["human", "gpt"] * (len(turns) // 2) or not turns:
            raise ConversationError(
                f"turns must be of human and gpt in alternation, not {[turn['from'] for turn in turns]}"
            )
        images = sum(turn["value"].count(IMAGE) for turn in turns)
        if images != has_image:
            raise ConversationError(
                f"{images} times {IMAGE} in the conversation, but {int(has_image)} image in the record"
            )
        for human, gpt in zip(turns[::2], turns[1::2], strict=True):
            question, answer = human["value"], gpt["value"]
            if IMAGE in answer:
                raise ConversationError(f"{IMAGE} in an answer")
            if not answer:
                raise ConversationError("an answer is empty")
            self._refuse_special(question.replace(IMAGE, ""))
            self._refuse_special(answer)
            if IMAGE in question:
                question = f"{IMAGE}\n{question.replace(IMAGE, '').strip()}".strip()
            yield question, answer

    def _refuse_special(self, text: str) -> None:
        found = [token for token in self._special if token in text]
        if found:
            raise ConversationError(f"{found[0]} in a text would be taken for the model's own token")

    def _tokenise(self, text: str) -> list[int]:
        """Ids of a text; the pieces around the image are tokenised apart, as the published code does."""
        pieces = [self.tokenizer(piece, add_special_tokens=False).input_ids for piece in text.split(IMAGE)]
        ids = list(pieces[0])
        for piece in pieces[1:]:
            ids += [IMAGE_TOKEN_INDEX, *piece]
        return ids


def _prompt(question: str) -> str:
    return f"{TURN}user\n{question}{END_OF_TURN}\n{TURN}model\n"


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

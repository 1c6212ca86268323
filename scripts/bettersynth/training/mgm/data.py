"""Training data: the kit's LLaVA JSON as samples, samples as batches, and the order in which they come."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import Dataset, Sampler

from bettersynth.configuration.pool import Reading
from bettersynth.core.publish import json_lines, read_json
from bettersynth.pool.images import ImageProblem, open_image
from bettersynth.training.mgm.model import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from bettersynth.training.mgm.processing import ConversationError, Encoded, Processor

logger = logging.getLogger(__name__)


class TrainingDataError(ValueError):
    """A record that cannot be trained on; the message names it."""


class Lost:
    """On record: rows whose pictures could not be read any more, from which nothing is learned.

    Several processes write. Raises `TrainingDataError` when they are a larger share of all rows than `share`.
    """

    def __init__(self, path: Path, share: float) -> None:
        self._path = path
        self._share = share

    def add(self, row_id: str, number: int, rows: int, problem: ImageProblem) -> None:
        """Note one of the `rows`, once for all times that it comes."""
        known = self._numbers()
        if number in known:
            return
        if len(known) + 1 > self._share * rows:
            raise TrainingDataError(
                f"record {row_id} (number {number}): {problem}; with it, {len(known) + 1} of {rows} rows have lost "
                f"their pictures since the preflight ({self._path}), more than unusable_share {self._share:g} allows; "
                "bring these back and run again: training goes on where it stopped"
            )
        logger.warning("record %s (number %d) is left out: %s", row_id, number, problem)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"number": number, "id": row_id, "problem": str(problem)}) + "\n")

    def rows(self) -> int:
        """How many rows there are on record."""
        return len(self._numbers())

    def _numbers(self) -> set[int]:
        return {line["number"] for line in json_lines(self._path)}


class ConversationDataset(Dataset):
    """Conversations in LLaVA's form, with or without an image.

    All words are tokenised and checked here, before any training; an image is opened when its sample is asked for.
    `image_path` finds the file of a record's `image`. Raises `TrainingDataError`: here for a conversation, unless
    `as_published` accepts it, and later for an image, unless it may go on record in `lost`: then nothing of its row is
    learned. No record is ever replaced by another one.
    """

    def __init__(
        self,
        path: str | Path,
        image_path: Callable[[str], Path],
        processor: Processor,
        *,
        max_length: int,
        reading: Reading,
        as_published: bool = False,
        lost: Lost | None = None,
    ) -> None:
        self.path = Path(path)
        self._image_path = image_path
        self._processor = processor
        self._max_length = max_length
        self._reading = reading
        self._as_published = as_published
        self.lost = lost
        rows = read_json(path)
        self.images = [row.get("image") for row in rows]
        self.ids = [str(row.get("id", number)) for number, row in enumerate(rows)]
        self._encoded = [self._encode(number, row) for number, row in enumerate(rows)]
        self.lengths = [
            length if image is not None else -length
            for length, image in zip(self._full_lengths(), self.images, strict=True)
        ]

    def _encode(self, number: int, row: dict[str, Any]) -> Any:
        try:
            has_image = self.images[number] is not None
            return self._processor.encode(row["conversations"], has_image, as_published=self._as_published)
        except (ConversationError, KeyError) as error:
            raise TrainingDataError(f"{self.path}: record {self.ids[number]} (number {number}): {error}") from error

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """`input_ids` and `labels` (length,), and `pixels` (3, side, side) or None."""
        encoded = self._encoded[number].expanded(self._processor.visual_tokens, self._max_length)
        # an image that begins beyond the cut has no tokens left
        pixels = None
        if IMAGE_TOKEN_INDEX in encoded.input_ids:
            pixels = self._pixels(number)
            if pixels is None:  # lost
                words = encoded.input_ids[encoded.input_ids != IMAGE_TOKEN_INDEX]
                encoded = Encoded(words, np.full_like(words, IGNORE_INDEX))
        return {
            "input_ids": torch.from_numpy(encoded.input_ids).long(),
            "labels": torch.from_numpy(encoded.labels).long(),
            "pixels": pixels,
        }

    def _pixels(self, number: int) -> torch.Tensor | None:
        """What the model sees of a row's picture; None for one that is lost."""
        try:
            return self._processor.pixels(open_image(self._image_path(self.images[number]), self._reading))
        except ImageProblem as problem:
            if self.lost is not None:
                self.lost.add(self.ids[number], number, len(self), problem)
                return None
            raise TrainingDataError(
                f"{self.path}: record {self.ids[number]} (number {number}): {problem}; bring the image back, and "
                "training goes on where it stopped"
            ) from problem

    def truncation(self) -> dict[str, int]:
        """How many samples are cut to `max_length`, and how many of them keep nothing to learn."""
        cut = [
            encoded
            for encoded, length in zip(self._encoded, self.lengths, strict=True)
            if abs(length) > self._max_length
        ]
        kept = [encoded.expanded(self._processor.visual_tokens, self._max_length) for encoded in cut]
        return {
            "cut": len(cut),
            "nothing_left": sum(bool((encoded.labels == IGNORE_INDEX).all()) for encoded in kept),
        }

    def check_answers(self) -> None:
        """Raise TrainingDataError when no sample has an answer left to learn."""
        if self.ids and self.truncation()["nothing_left"] == len(self.ids):
            raise TrainingDataError(f"{self.path}: nothing to learn: {self.without_answers()}")

    def without_answers(self) -> str:
        """How many samples are cut before their answers begin, and what to change; empty when none is."""
        lost = self.truncation()["nothing_left"]
        if not lost:
            return ""
        longest = max(map(abs, self.lengths))
        return (
            f"{lost} of {len(self.ids)} samples are cut before their answers, at `max_length` {self._max_length}; an "
            f"image takes {self._processor.visual_tokens} tokens, the longest sample has {longest}: raise it"
        )

    def _full_lengths(self) -> Iterator[int]:
        for encoded, image in zip(self._encoded, self.images, strict=True):
            yield len(encoded.input_ids) + (self._processor.visual_tokens - 1 if image is not None else 0)


class Collator:
    """Pads samples on the right and stacks the images of those that have one.

    There is no attention mask: attention is causal, so no token sees the padding behind it, and the padding itself
    has no labels.
    """

    def __init__(
        self, pad_token_id: int, image_size: int, dtype: torch.dtype = torch.float32, multiple: int = 1
    ) -> None:
        """Batches are as long as their longest sample, rounded up to a multiple of `multiple` tokens."""
        self._pad_token_id = pad_token_id
        self._multiple = multiple
        self._no_image = torch.empty(0, 3, image_size, image_size, dtype=dtype)

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_ids` and `labels` (batch, length), and `pixel_values` (images, 3, side, side) in `dtype`.

        A batch without images has `pixel_values` of length 0, so that the connector takes part in every step.
        """
        pixels = [sample["pixels"] for sample in samples if sample["pixels"] is not None]
        return {
            "input_ids": self._padded([sample["input_ids"] for sample in samples], self._pad_token_id),
            "labels": self._padded([sample["labels"] for sample in samples], IGNORE_INDEX),
            "pixel_values": torch.stack(pixels).to(self._no_image.dtype) if pixels else self._no_image,
        }

    def _padded(self, rows: Sequence[torch.Tensor], value: int) -> torch.Tensor:
        length = -(-max(map(len, rows)) // self._multiple) * self._multiple
        return torch.stack([functional.pad(row, (0, length - len(row)), value=value) for row in rows])


class TrainingOrder(Sampler[int]):
    """Row numbers in the order of training: all steps of all epochs, from the seed alone.

    An epoch is a permutation of the rows, without the last ones that fill no whole step. With `lengths` (tokens,
    negative without an image), samples of like modality and length come together, as with LLaVA's
    `group_by_modality_length`: the rows of one step are of one modality, and come longest first, so that a forward pass
    pads little and the passes that run at the same time on several GPUs take about as long.
    """

    def __init__(
        self,
        rows: int,
        global_batch: int,
        steps: int,
        seed: int,
        lengths: Sequence[int] | None = None,
    ) -> None:
        if rows < global_batch:
            raise TrainingDataError(
                f"{rows} rows are fewer than one global batch of {global_batch}; lower `global_batch`"
            )
        self._rows = rows
        self._global_batch = global_batch
        self._steps = steps
        self._seed = seed
        self._lengths = lengths

    def __len__(self) -> int:
        return self._steps * self._global_batch

    def __iter__(self) -> Iterator[int]:
        left = self._steps
        epoch = 0
        while left > 0:
            batches = self._epoch(epoch)[:left]
            for batch in batches:
                yield from batch
            left -= len(batches)
            epoch += 1

    def _epoch(self, epoch: int) -> list[list[int]]:
        """The steps of one epoch."""
        digest = hashlib.sha256(f"order {self._seed} {epoch}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        order = torch.randperm(self._rows, generator=generator).tolist()
        if self._lengths is None:
            return _batches(order, self._global_batch)
        return self._grouped(order, self._lengths, generator)

    def _grouped(self, order: list[int], lengths: Sequence[int], generator: torch.Generator) -> list[list[int]]:
        """Steps of one modality in random order, then what is left of both."""
        whole, rest = [], []
        for has_image in (True, False):
            rows = [row for row in order if (lengths[row] > 0) == has_image]
            batches = _batches(rows, self._global_batch)
            whole += batches
            rest += rows[len(batches) * self._global_batch :]
        steps = [whole[number] for number in torch.randperm(len(whole), generator=generator).tolist()]
        steps += _batches(rest, self._global_batch)
        return [sorted(step, key=lambda row: -abs(lengths[row])) for step in steps]


def _batches(rows: list[int], size: int) -> list[list[int]]:
    """Consecutive batches of exactly `size` rows."""
    return [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]

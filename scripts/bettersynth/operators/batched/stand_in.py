"""Batched filters in the place of Data-Juicer's own, in its executors: what the plugin (`plugins/data-juicer`) runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image, ImageFile

from bettersynth.configuration.operators import operator_spec
from bettersynth.configuration.pool import Reading, Scoring
from bettersynth.core.image_paths import ImageReason
from bettersynth.core.records import Record
from bettersynth.operators.batched.errors import RecordError
from bettersynth.operators.batched.filters import BatchedFilter, Fields
from bettersynth.operators.batched.preparing import ORDINARY
from bettersynth.operators.batched.scorer import BatchScorer

AS_STOCK = Reading(deep_grey="clip")
"""How pictures are read: as the stock filters, whose place is taken."""


class AsGiven:
    """Paths of samples in Data-Juicer's executors: they are what they say."""

    def path(self, image_root: str, relative: str) -> str:
        return relative


class Batches:
    """The batched form of a stock filter, with its model, for samples in Data-Juicer's form."""

    def __init__(self, name: str, stock: Any, rank: int | None, *, precision: str = "fp32", threads: int = 0) -> None:
        """`stock` is Data-Juicer's filter `name` as it was made, `rank` Data-Juicer's, of a worker among several.

        `threads` prepare pictures for a GPU; on a CPU the models need the cores. Raises ValueError or ImportError where
        the filter's model, or the installed transformers, have no batched form.
        """
        kind_class = operator_spec(name).kind_class
        assert kind_class is not None and issubclass(kind_class, BatchedFilter)
        self._kind = kind_class.of(stock)
        with _as_it_was():
            self._kind.load(precision, rank)
            self._kind.plan([ORDINARY], [["ordinary"]])  # a tokenizer's settings are made before threads share it
        self._scorer = BatchScorer(
            {name: self._kind},
            {},
            {name: (self._kind.stat,)},
            reading=AS_STOCK,
            settings=Scoring(workers=0),
            loading={name: 0.0},
            noted=frozenset(ImageReason),
            threads=threads if self._kind.device.type == "cuda" else 0,
        )

    def fill_in(self, samples: dict[str, list[Any]]) -> dict[int, str]:
        """Add the stats of samples that have none yet; returns position → why of those that stay without."""
        kind = self._kind
        due = [number for number, stats in enumerate(samples[Fields.stats]) if kind.stat not in stats]
        images = samples.get(kind.image_key) or [[] for _ in samples[Fields.stats]]
        records = [Record(str(number), samples[kind.text_key][number], images[number] or []) for number in due]
        try:
            with _as_it_was():
                ((scores,),) = (self._scorer.score(records, AsGiven()).values(),)
        except RecordError as error:
            return dict.fromkeys(due, str(error))
        left = {int(record): why for record, why in (scores.unreadable | scores.failed).items()}
        for number, stats in zip(due, scores.stats, strict=True):
            if number not in left:
                samples[Fields.stats][number].update(stats)
        return left


@contextmanager
def _as_it_was() -> Iterator[None]:
    """What is set for the whole process is as it was afterwards: other operators run in it, too."""
    truncated, pixels = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    convolutions = torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = truncated, pixels
        torch.backends.cudnn.allow_tf32 = convolutions

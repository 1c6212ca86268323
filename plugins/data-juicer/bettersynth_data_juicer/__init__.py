"""Data-Juicer's image filters with their models run in batches.

Data-Juicer finds this package by its entry point `data_juicer.ops`. Each filter of `FILTERS` is there under a name of
its own, `bettersynth_…`; where the environment variable `BETTERSYNTH_FILTERS` is `batched`, it stands for Data-Juicer's
own, too, so that a recipe runs faster as it is. Parameters, stats, defaults and keep rules are Data-Juicer's.

Nothing heavy is imported before the first sample is scored.
"""

from __future__ import annotations

import importlib
import logging
import os
from typing import Any

from data_juicer.ops.base_op import OPERATORS
from data_juicer.ops.op_fusion import LOADED_IMAGES
from data_juicer.utils.constant import Fields
from loguru import logger

FILTERS = (
    "image_aesthetics_filter",
    "image_nsfw_filter",
    "image_text_matching_filter",
    "image_text_similarity_filter",
    "image_watermark_filter",
    "phrase_grounding_recall_filter",
)
"""The filters of Data-Juicer that have a batched form."""
PREFIX = "bettersynth_"
IN_PLACE = "BETTERSYNTH_FILTERS"
"""Environment variable: `batched` lets these filters take the place of Data-Juicer's own."""
PRECISION = "BETTERSYNTH_PRECISION"
"""Environment variable: `fp32`, as the stock filters have it, or `fp16` or `bf16`, which large models are faster in."""
BATCH = 1000
"""Samples that a filter takes at one time, where a recipe does not say; Data-Juicer has 10."""
MOST_THREADS = 16
"""That open pictures for one GPU."""

Samples = dict[str, list[Any]]


class Batched:
    """Makes a stock filter's stats in batches; mixed in before it. What a batch cannot score, the stock filter does."""

    _batched_op = True
    _processes = 1
    """How many of Data-Juicer's processes share the cores."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if kwargs.get("batch_size") is None:
            self.batch_size = BATCH

    def runtime_np(self) -> int:
        self._processes = super().runtime_np() or 1  # type: ignore[misc]
        return self._processes

    def compute_stats_batched(self, samples: Samples, rank: int | None = None, context: bool = False) -> Samples:
        """Fill in the stats of samples that have none.

        Samples that carry their pictures as bytes, and filters that share decoded ones, are the stock filter's.
        """
        batches = None if context or self.image_bytes_key in samples else self._batches(rank)
        left = range(len(samples[Fields.stats])) if batches is None else sorted(batches.fill_in(samples))
        return self._stock(samples, left, rank, context)

    def _batches(self, rank: int | None) -> Any:
        """The batched form, kept beside Data-Juicer's models and given up with them; None where there is none."""
        from data_juicer.utils.model_utils import MODEL_ZOO

        key = (PREFIX, self.model_key)
        if key not in MODEL_ZOO:
            try:
                MODEL_ZOO[key] = self._loaded(rank)
            except (ImportError, ValueError) as error:
                logger.warning(f"[{self._name}] is run one sample at a time, as Data-Juicer has it: {error}")
                MODEL_ZOO[key] = None
        return MODEL_ZOO[key]

    def _loaded(self, rank: int | None) -> Any:
        from bettersynth.operators.batched.stand_in import Batches

        logging.getLogger("bettersynth.core.progress").setLevel(logging.WARNING)  # Data-Juicer shows its own
        threads = min(MOST_THREADS, max(1, len(os.sched_getaffinity(0)) // self._processes))
        name = self._name.removeprefix(PREFIX)
        return Batches(name, self, rank, precision=os.environ.get(PRECISION, "fp32"), threads=threads)

    def _stock(self, samples: Samples, positions: Any, rank: int | None, context: bool) -> Samples:
        """Let the stock filter score these, one by one; with `skip_op_error`, those that it raises for are left out."""
        lost = set()
        for position in positions:
            sample = {key: values[position] for key, values in samples.items()}
            try:
                made = self.compute_stats_single(sample, rank=rank, context=context)
            except Exception as error:
                if not self.skip_op_error:
                    raise
                logger.error(f"[{self._name}] leaves a sample out: {type(error).__name__}: {error}")
                lost.add(position)
                continue
            for key in (Fields.stats, Fields.context) if context else (Fields.stats,):
                samples[key][position] = made[key]
        if not lost:
            return samples
        return {key: [one for at, one in enumerate(values) if at not in lost] for key, values in samples.items()}


def _register(stock_name: str) -> None:
    """Add the batched form of one of Data-Juicer's filters to its registry."""
    module = importlib.import_module(f"data_juicer.ops.filter.{stock_name}")
    [stock] = [kind for kind in vars(module).values() if getattr(kind, "_name", "") == stock_name]
    names = [PREFIX + stock_name]
    if os.environ.get(IN_PLACE) == "batched":
        names.append(stock_name)
        LOADED_IMAGES.modules.pop(stock_name, None)  # or fused filters would run it as it was
    for name in names:
        title = "".join(word.title() for word in name.split("_"))
        made = type(title, (Batched, stock), {"__module__": __name__, "__doc__": stock.__doc__})
        globals()[title] = OPERATORS.register_module(name, made, force=True)  # worker processes find it by its name


for _name in FILTERS:
    _register(_name)

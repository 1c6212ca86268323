"""Operators with their models, ready to score."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from bettersynth.configuration.types import Configuration
from bettersynth.core.own import scratch_folder
from bettersynth.runtime import patches
from bettersynth.runtime.patches.data_juicer import import_data_juicer

if TYPE_CHECKING:
    from bettersynth.operators.batched.scorer import BatchScorer


def load_scorer(names: Iterable[str], configuration: Configuration) -> BatchScorer:
    """The configuration's operators of these names, loaded on the GPU where there is one."""
    with scratch_folder() as cache:
        patches.prepare(cache, configuration.pool.max_pixels)
        import_data_juicer()
        from bettersynth.operators.batched.scorer import BatchScorer

        operators = {name: configuration.operators[name] for name in sorted(names)}
        return BatchScorer.load(
            {
                name: (operator, configuration.models[operator.model] if operator.model else None)
                for name, operator in operators.items()
            },
            reading=configuration.pool.reading,
            settings=configuration.scoring,
        )


def plain(value: Any) -> Any:
    """NumPy's arrays and numbers as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value

"""How each score is distributed over the pool and over every generated source, and where thresholds cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from bettersynth.configuration.operators import operator_spec
from bettersynth.configuration.threshold import Threshold
from bettersynth.configuration.types import Configuration
from bettersynth.core.cached import cached_method
from bettersynth.core.layout import Layout
from bettersynth.core.names import StatKey
from bettersynth.core.records import POOL
from bettersynth.core.tables import read_table
from bettersynth.datasets.analysis import bin_edges
from bettersynth.datasets.values import plain, values_of
from bettersynth.report.charts import histogram
from bettersynth.workflow.plan import Plan

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_WORDS = 8


class Scores:
    """The scores of a run as far as they are there, each source and operator read once."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    @cached_method
    def table(self, source: str, operator: str) -> pa.Table | None:
        """`id` and one column per stat; None when it has not been scored."""
        path = self._layout.scores(source, operator)
        return read_table(path) if path.exists() else None


def filters(configuration: Configuration) -> Iterator[tuple[str, StatKey, Threshold]]:
    """Every threshold of the configuration: dataset, score, threshold."""
    for name, node in configuration.datasets.items():
        for key, threshold in node.verb.thresholds().items():
            yield name, key, threshold


def interval_text(name: str, threshold: Threshold) -> str:
    """A threshold as a person writes it: `similarity ≥ 0.32`, `0.01 ≤ similarity ≤ 0.28`."""
    if threshold.one_of:
        return f"{name} is {' or '.join(threshold.one_of)}"
    low = None if threshold.min is None else plain(threshold.min)
    high = None if threshold.max is None else plain(threshold.max)
    if high is None:
        return f"{name} ≥ {low}"
    return f"{name} ≤ {high}" if low is None else f"{low} ≤ {name} ≤ {high}"


def distributions(configuration: Configuration, plan: Plan, scores: Scores) -> list[dict[str, Any]]:
    """One entry for each stat that has scores: a chart, quantiles by source, thresholds in words."""
    entries = []
    for operator in configuration.operators:
        tables = {
            source: table
            for source in (POOL, *plan.generators)
            if (table := scores.table(source, operator)) is not None
        }
        stats = operator_spec(configuration.operators[operator].op).stats
        for stat in (stat for stat, kind in stats.items() if tables and kind != "vector"):
            values = {source: values_of(stat, table[stat]).flat for source, table in tables.items()}
            used = [
                (dataset, threshold)
                for dataset, key, threshold in filters(configuration)
                if key in (StatKey(operator), StatKey(operator, stat))
            ]
            entry = distribution(operator, stat, values, used)
            if entry is not None:
                entries.append(entry)
    return entries


def distribution(
    operator: str, stat: str, values: Mapping[str, np.ndarray], used: list[tuple[str, Threshold]]
) -> dict[str, Any] | None:
    """The entry of one stat, from its values by source; None for one that has no distribution."""
    entry: dict[str, Any] = {
        "operator": operator,
        "stat": stat,
        "thresholds": [f"{dataset}: {interval_text(operator, threshold)}" for dataset, threshold in used],
    }
    if any(array.dtype == object for array in values.values()):
        first = next(iter(values.values()))
        if len(set(first)) > len(first) / 2:
            return None  # an identifier, such as an image's hash, has no distribution
        return entry | {"words": {source: _commonest(array) for source, array in values.items()}}
    finite = {source: array[np.isfinite(array)] for source, array in values.items()}
    finite = {source: array for source, array in finite.items() if len(array)}
    if not finite:
        return None
    edges = bin_edges(np.concatenate(list(finite.values())))
    counts = {source: np.histogram(array, edges)[0] for source, array in finite.items()}
    shares = {source: counts[source] / len(array) for source, array in finite.items()}
    title = f"Distribution of {stat} over {' and '.join(finite)}"
    return entry | {
        "chart": histogram(title, edges, shares, _marks(operator, used)),
        "numbers": [
            ["from", "to", *counts],
            *map(
                list,
                zip(edges.tolist(), edges[1:].tolist(), *(each.tolist() for each in counts.values()), strict=False),
            ),
        ],
        "sources": [
            {
                "name": source,
                "values": len(array),
                "mean": float(array.mean()),
                "quantiles": [float(value) for value in np.quantile(array, QUANTILES)],
                "lost": len(values[source]) - len(array),
            }
            for source, array in finite.items()
        ],
    }


def _marks(operator: str, used: list[tuple[str, Threshold]]) -> list[tuple[float, str]]:
    """Bounds that thresholds use, each once, with everything that is kept by it."""
    kept: dict[float, list[str]] = {}
    for dataset, threshold in used:
        for bound in (threshold.min, threshold.max):
            if bound is not None:
                kept.setdefault(bound, []).append(f"{dataset} keeps {interval_text(operator, threshold)}")
    return [(bound, "; ".join(texts)) for bound, texts in sorted(kept.items())]


def _commonest(words: np.ndarray) -> list[tuple[str, float]]:
    """The commonest words and their shares, by share and then by name."""
    counts = sorted(Counter(words.tolist()).items(), key=lambda item: (-item[1], str(item[0])))
    return [(str(word), count / len(words)) for word, count in counts[:MOST_WORDS]]

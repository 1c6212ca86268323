"""How scores are distributed over rows: the figures that Data-Juicer's `dj-analyze` gives.

Values are counted as `dj-analyze` counts them: each one of a record with several images or chunks; of correlations, a
record's mean. Unlike there, a record without any value counts as none, not as 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.names import StatKey
from bettersynth.core.publish import Card, sha256_file
from bettersynth.datasets.columns import Column, columns_of, row_means
from bettersynth.datasets.scores import load_values
from bettersynth.datasets.values import Values
from bettersynth.pool.rows import read_rows
from bettersynth.workflow.plan import Plan

QUARTILES = (0.25, 0.5, 0.75)
PERCENTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
BINS = 48


def build_analysis(name: str, configuration: Configuration, layout: Layout, plan: Plan) -> dict[str, Any]:
    """Publish count, mean, standard deviation and quartiles of each of the analysis's scores, which are returned.

    Raises ValueError for a missing or stale score.
    """
    analysis = configuration.analyses[name]
    rows = read_rows(analysis.dataset, layout)
    card = Card(
        name=name,
        dataset=analysis.dataset,
        parameters={"operators": analysis.operators},
        inputs={analysis.dataset: sha256_file(layout.rows(analysis.dataset))},
    )
    return card.write(layout.analysis(name), rows=len(rows), stats=stats_of(rows, analysis.operators, layout, plan))


def stats_of(rows: pa.Table, operators: list[str], layout: Layout, plan: Plan) -> dict[str, Any]:
    """The figures of each score over these rows; None where there is no row."""
    return {
        key: _figures(load_values(rows, StatKey.parse(key), layout, plan)) if len(rows) else None for key in operators
    }


def _figures(values: Values) -> dict[str, Any] | None:
    """The figures of a score; None when it has no value that is a number."""
    known = values.flat[np.isfinite(values.flat)]
    if not len(known):
        return None
    return {
        "stat": values.label,
        "values": len(known),
        "not_numbers": len(values.flat) - len(known),
        "mean": float(known.mean()),
        "sd": float(known.std(ddof=1)) if len(known) > 1 else 0.0,
        "quartiles": [float(value) for value in np.quantile(known, QUARTILES)],
    }


def analyse(dataset: str, layout: Layout, plan: Plan) -> dict[str, Any]:
    """Every score of a dataset's rows, or of the pool's: `{"dataset", "rows", "scores", "correlation", "missing"}`.

    Of a score, its figures (`described`) and its histogram; of the correlation, Pearson's, `keys` and `matrix`.
    """
    rows = read_rows(dataset, layout)
    columns = columns_of(rows, layout, plan)
    return {
        "dataset": dataset,
        "rows": len(rows),
        "scores": {str(column.key): described(column.values) for column in columns.found},
        "correlation": correlation(columns.numbers),
        "missing": [[scores.operator, scores.source] for scores in columns.missing],
    }


def described(values: Values) -> dict[str, Any]:
    """`count`, and of numbers `mean`, `std`, `min`, percentiles (`50%`), `max`, `histogram`; of words the commonest.

    What is not a number is left out, and counted as `not_numbers`.
    """
    if not values.numeric:
        commonest = Counter(values.flat.tolist()).most_common(BINS)
        found: dict[str, Any] = {"count": len(values.flat), "unique": len(set(values.flat)), "commonest": commonest}
        return found
    known = values.flat[np.isfinite(values.flat)]
    figures = pd.Series(known).describe(percentiles=list(PERCENTILES)).to_dict()
    figures = {name: None if np.isnan(figure) else float(figure) for name, figure in figures.items()}
    edges = bin_edges(known)
    counts = np.histogram(known, edges)[0].tolist() if len(known) else []
    return {
        **figures,
        "count": len(known),
        "not_numbers": len(values.flat) - len(known),
        "histogram": {"edges": edges.tolist(), "counts": counts},
    }


def bin_edges(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Edges of at most `BINS` bins; one bin per number when the values are few whole numbers; none for no value."""
    if not len(values):
        return np.empty(0)
    low, high = float(values.min()), float(values.max())
    if np.all(values == np.round(values)) and high - low < BINS:
        return np.arange(low - 0.5, high + 1.5)
    return np.linspace(low, high if high > low else low + 1, BINS + 1)


def correlation(columns: Sequence[Column]) -> dict[str, Any]:
    """Pearson's correlation of each two scores over the rows that have both; None where one does not vary."""
    means = pd.DataFrame({str(column.key): row_means(column.values) for column in columns})
    matrix = means.corr().to_numpy()
    return {
        "keys": list(means.columns),
        "matrix": [[None if np.isnan(figure) else float(figure) for figure in line] for line in matrix],
    }


def changes(dataset: str, other: str, layout: Layout, plan: Plan) -> dict[str, Any]:
    """What became of the records that both have, score by score: `{"pairs", "scores": {key: …}}`.

    Of each score that both have: mean before and after, and the shares of pairs whose score rose and fell. Records are
    the same by their ids, whatever their sources.
    """
    before, after = (_one_each(read_rows(name, layout)) for name in (dataset, other))
    before = before.filter(pc.is_in(before["id"], value_set=after["id"]))
    after = after.take(pc.index_in(before["id"], value_set=after["id"]))
    sides = [
        {str(column.key): row_means(column.values) for column in columns_of(rows, layout, plan).numbers}
        for rows in (before, after)
    ]
    scores = {key: _change(sides[0][key], sides[1][key]) for key in sides[0] if key in sides[1]}
    return {"pairs": before.num_rows, "scores": scores}


def _one_each(rows: pa.Table) -> pa.Table:
    """Each id once."""
    return rows.take(pc.index_in(pc.unique(rows["id"]), value_set=rows["id"]))


def _change(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> dict[str, Any]:
    both = np.isfinite(before) & np.isfinite(after)
    before, after = before[both], after[both]
    if not len(before):
        return {"pairs": 0, "before": None, "after": None, "rose": None, "fell": None}
    return {
        "pairs": len(before),
        "before": float(before.mean()),
        "after": float(after.mean()),
        "rose": float((after > before).mean()),
        "fell": float((after < before).mean()),
    }

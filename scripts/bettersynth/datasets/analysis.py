"""How scores are distributed over a dataset: the figures that Data-Juicer's `dj-analyze` gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.names import StatKey
from bettersynth.core.publish import Card, sha256_file
from bettersynth.datasets.scores import load_values
from bettersynth.datasets.values import Values
from bettersynth.pool.rows import read_rows
from bettersynth.workflow.plan import Plan

QUARTILES = (0.25, 0.5, 0.75)


def build_analysis(name: str, configuration: Configuration, layout: Layout, plan: Plan) -> dict[str, Any]:
    """Publish count, mean, standard deviation and quartiles of each of the analysis's scores, which are returned.

    Values are counted as `dj-analyze` counts them: each one of a record with several images or chunks. Raises
    ValueError for a missing or stale score.
    """
    analysis = configuration.analyses[name]
    rows = read_rows(analysis.dataset, layout)
    card = Card(
        name=name,
        dataset=analysis.dataset,
        parameters={"operators": analysis.operators},
        inputs={analysis.dataset: sha256_file(layout.rows(analysis.dataset))},
    )
    stats = {
        key: _figures(load_values(rows, StatKey.parse(key), layout, plan)) if len(rows) else None
        for key in analysis.operators
    }
    return card.write(layout.analysis(name), rows=len(rows), stats=stats)


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

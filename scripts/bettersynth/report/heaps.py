"""Two heaps: runs that align and runs that do not, where a board's scatter is of that kind.

Where runs of one recipe fall on both sides of a gap, its mean says mostly how many of them were lucky. Whether there is
a gap is tested within recipes: how much of the runs' scatter one cut through all levels explains, against the same of
boards with normal scatter (a parametric bootstrap, as McLachlan, 1987, has it for mixtures).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from bettersynth.report.board import Board

SIGNIFICANCE = 0.05
SIMULATED = 199
FEW_SEEDS = 8
LEAST_EXPLAINED = 0.8
"""Of the scatter within recipes: less is a tail rather than a heap."""


class Cut(NamedTuple):
    """A level between two heaps."""

    level: float
    explained: float
    """The share of the scatter within recipes that the sides of the cut explain."""
    p: float


def find_cut(levels: np.ndarray, recipe: np.ndarray) -> Cut | None:
    """The cut between two heaps of runs, or None where there are none; `recipe` numbers each run's recipe from 0."""
    counts = np.bincount(recipe)
    if len(levels) - len(counts) < 3:
        return None
    level, explained = _best(levels, recipe, counts)
    means = np.bincount(recipe, levels) / counts
    scatter = np.sqrt(np.square(levels - means[recipe]).sum() / (len(levels) - len(counts)))
    generator = np.random.default_rng(0)
    normal = means[recipe] + scatter * generator.standard_normal((SIMULATED, len(levels)))
    higher = sum(_best(each, recipe, counts)[1] >= explained for each in normal)
    p = (1 + higher) / (1 + SIMULATED)
    return Cut(level, explained, p) if p <= SIGNIFICANCE and explained >= LEAST_EXPLAINED else None


def _best(levels: np.ndarray, recipe: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """The cut between neighbouring levels that explains most of the scatter within recipes, and its share."""
    order = np.argsort(levels)
    ordered = levels[order]
    below = np.tri(len(levels), dtype=float)[:-1][:, np.argsort(order)]  # a row for each cut
    of_recipe = np.eye(len(counts))[recipe]
    below -= (below @ of_recipe / counts)[:, recipe]
    within = levels - (levels @ of_recipe / counts)[recipe]
    weight = np.square(below).sum(1)
    explained = np.divide(np.square(below @ within), weight, out=np.zeros(len(weight)), where=weight > 1e-9)
    at = int(explained.argmax())
    whole = float(np.square(within).sum())
    return float(ordered[at : at + 2].mean()), float(explained[at] / whole) if whole else 0.0


def heaps(board: Board) -> dict[str, Any] | None:
    """How many runs of each recipe lie above the cut, and the means of these; None where there are no two heaps."""
    if not board.runs:
        return None
    levels = np.mean([answers.levels() for answers in board.answers.values()], axis=0)
    recipe = np.array([board.recipes.index(name) for name, _ in board.runs])
    cut = find_cut(levels, recipe)
    if cut is None:
        return None
    above = levels > cut.level
    return {
        **cut._asdict(),
        "recipes": [_of_recipe(board, name, recipe == at, above) for at, name in enumerate(board.recipes)],
    }


def _of_recipe(board: Board, name: str, its: np.ndarray, above: np.ndarray) -> dict[str, Any]:
    aligned, runs = int((its & above).sum()), int(its.sum())
    interval = stats.binomtest(aligned, runs).proportion_ci(0.95, method="wilson")
    means = {
        benchmark: float((answers.points[its & above] / answers.questions).mean()) if aligned else None
        for benchmark, answers in board.answers.items()
    }
    is_luck = 0 < aligned < runs and runs < FEW_SEEDS
    warning = f"{aligned} of {runs} aligned: its mean says mostly how many were lucky" if is_luck else None
    return {
        "recipe": name,
        "aligned": aligned,
        "runs": runs,
        "share_low": float(interval.low),
        "share_high": float(interval.high),
        "means_of_aligned": means,
        "warning": warning,
    }

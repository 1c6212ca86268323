"""The finished runs of a board, as the comparison takes them, and what it says of two recipes in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from bettersynth.core.cached import cached_method
from bettersynth.core.commands import make
from bettersynth.report.comparison import SIGNIFICANCE, Comparison, Difference, Runs, holm

Results = dict[int, dict[str, dict[str, Any]]]
"""One recipe's finished results: by seed, by benchmark."""

POWER = 0.8
EQUAL_RATIO = 1.05
"""Two recipes are called equal when the 90 % interval of their ratio lies within this and its inverse."""
MOST_SEEDS = 100
UNKNOWN_SCATTER = "no recipe has two finished seeds, so nothing is known of the scatter between runs"


class Judged(NamedTuple):
    """What is said of a recipe beside another: the ratio of their levels and the word for it."""

    ratio: float
    low: float
    high: float
    """95 % interval of the ratio."""
    p: float
    p_holm: float
    """Adjusted for the other comparisons of the board; the word follows it."""
    detectable: float
    """The ratio that so many seeds find in four of five boards."""
    verdict: str
    basis: str


class Board:
    """Recipes whose runs can be compared: all finished ones, but for recipes whose seeds were picked by their loss.

    Picked seeds say what the policy "the best k of n" gives, not what the recipe gives, so they are compared with none.
    """

    def __init__(self, results: Mapping[str, Results], benchmarks: Sequence[str]) -> None:
        self.results = {recipe: runs for recipe, runs in results.items() if runs}
        self.recipes, self.benchmarks = list(self.results), list(benchmarks)
        self.runs = [(recipe, seed) for recipe, runs in self.results.items() for seed in sorted(runs)]

    def seeds(self, recipe: str) -> int:
        """Number of the recipe's finished runs."""
        return len(self.results.get(recipe, ()))

    def judge(self, baseline: str, recipes: Sequence[str]) -> dict[str, Judged | None]:
        """Each recipe beside the baseline, p-values adjusted for all; None where no recipe has two finished seeds."""
        known = {name: self.difference(name, baseline) for name in recipes}
        adjusted = iter(holm([found.p for found in known.values() if found]))
        return {name: found and self._judged(name, baseline, found, next(adjusted)) for name, found in known.items()}

    def difference(self, first: str, second: str, benchmark: str | None = None) -> Difference | None:
        """Of the first recipe's level less the second's; in accuracy, 0…1, where a benchmark is named.

        None where nothing is known of the scatter between runs. Raises ValueError where runs answer other questions.
        """
        if not self.runs:
            return None
        return self._comparison(benchmark).difference(self.recipes.index(first), self.recipes.index(second))

    def mean_difference(self, first: str, second: str) -> Difference | None:
        """Of the recipes' mean accuracies over the benchmarks."""
        comparison = Comparison(self._runs([(benchmark, False) for benchmark in self.benchmarks]))
        return comparison.difference(self.recipes.index(first), self.recipes.index(second))

    def _judged(self, name: str, baseline: str, found: Difference, p_holm: float) -> Judged:
        freedom = self._comparison(None).freedom
        reach = float(stats.t.ppf(1 - SIGNIFICANCE / 2, freedom) + stats.t.ppf(POWER, freedom)) * found.error
        verdict = _word(found, p_holm, freedom)
        mine, other = self.seeds(name), self.seeds(baseline)
        basis = f"with {_counted(mine)}" if mine == other else f"with {_counted(mine)} against {other}"
        if min(mine, other) == 1:
            basis += ", a single one's scatter taken from the other recipes"
        if verdict == "leaning":
            side = "better" if found.mean > 0 else "worse"
            basis = f"towards {side} {basis}, which does not survive the correction for the other comparisons"
        elif verdict == "not distinguishable":
            basis += f"; ×{math.exp(reach):.2f} could have been found{self._wanted(name, found, reach)}"
        ratio, low, high = (math.exp(value) for value in (found.mean, found.low, found.high))
        return Judged(ratio, low, high, found.p, p_holm, math.exp(reach), verdict, basis)

    def _wanted(self, name: str, found: Difference, reach: float) -> str:
        """How many seeds would find what was seen."""
        if not found.mean:
            return ""
        seeds = math.ceil(self.seeds(name) * (reach / found.mean) ** 2)
        many = f"more than {MOST_SEEDS}" if seeds > MOST_SEEDS else f"about {seeds}"
        return f", ×{math.exp(found.mean):.2f} would take {many} seeds of each"

    @cached_method
    def _comparison(self, benchmark: str | None) -> Comparison:
        parts = [(name, True) for name in self.benchmarks] if benchmark is None else [(benchmark, False)]
        return Comparison(self._runs(parts))

    def _runs(self, parts: Sequence[tuple[str, bool]]) -> Runs:
        """Levels over benchmarks, of each whether its accuracies' logarithms count, and what each cluster adds."""
        levels, clusters = [], []
        for benchmark, is_log in parts:
            scores, cluster = self._scores(benchmark)
            points, questions = scores.sum(1), scores.shape[1]
            levels.append(np.log((points + 0.5) / (questions + 1)) if is_log else points / questions)
            slope = 1 / (points + 0.5) if is_log else np.full(len(points), 1 / questions)
            deviations = (scores - scores.mean(1, keepdims=True)) * slope[:, None]
            sums = np.zeros((len(scores), int(cluster.max()) + 1))
            np.add.at(sums.T, cluster, deviations.T)
            clusters.append(sums)
        added = np.hstack(clusters) / len(parts)
        recipe = np.array([self.recipes.index(name) for name, _ in self.runs])
        seed = np.array([seed for _, seed in self.runs])
        return Runs(recipe, seed, np.mean(levels, axis=0), added @ added.T)

    def _scores(self, benchmark: str) -> tuple[np.ndarray, np.ndarray]:
        """`[runs, questions]` and each question's cluster: questions of one picture are one."""
        rows = [self.results[recipe][seed][benchmark]["per_question"] for recipe, seed in self.runs]
        questions = [row["id"] for row in rows[0]]
        if any([row["id"] for row in run] != questions for run in rows):
            raise ValueError(
                f"the {benchmark} results of {', '.join(dict(self.runs))} answer different questions and cannot be "
                f"compared; score them again: {make('run', AGAIN='score_answers')}"
            )
        groups = [str(row.get("group", row["id"])) for row in rows[0]]
        cluster = np.unique(groups, return_inverse=True)[1]
        return np.array([[row["score"] for row in run] for run in rows]), cluster


def _word(found: Difference, p_holm: float, freedom: int) -> str:
    if p_holm <= SIGNIFICANCE:
        return "better" if found.mean > 0 else "worse"
    if found.p <= SIGNIFICANCE:
        return "leaning"
    half = float(stats.t.ppf(1 - SIGNIFICANCE, freedom)) * found.error
    return "equal" if abs(found.mean) + half <= math.log(EQUAL_RATIO) else "not distinguishable"


def _counted(seeds: int) -> str:
    return f"{seeds} seed{'' if seeds == 1 else 's'}"


def compared(board: Board, first: str, second: str) -> Iterator[str]:
    """Lines on one recipe beside another: what both gave, the difference of each benchmark, and the verdict."""
    for benchmark in board.benchmarks:
        found = board.difference(first, second, benchmark)
        means = [
            float(np.mean([run[benchmark]["accuracy"] for run in board.results[name].values()]))
            for name in (first, second)
        ]
        less = f", {found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f})" if found else ""
        yield f"{benchmark}: {means[0]:.4f} and {means[1]:.4f}{less}"
    judged = board.judge(second, [first])[first]
    if judged is None:
        yield f"not tested: {UNKNOWN_SCATTER}"
        return
    yield f"{first} over {second}: ×{judged.ratio:.3f} ({judged.low:.3f} to {judged.high:.3f}), p = {judged.p:.4f}"
    yield f"{judged.verdict} {judged.basis}"

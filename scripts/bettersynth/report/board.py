"""The finished runs of a board, and their answers, as the comparison takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from bettersynth.core.cached import cached_method
from bettersynth.core.commands import make
from bettersynth.report.comparison import Comparison, Design, Difference, Losses

RunKey = tuple[str, int]
"""Recipe and seed."""
Reader = Callable[[RunKey, str], Mapping[str, Any]]
"""Reads the result of a run on a benchmark."""


def level_of(points: np.ndarray | float, questions: int) -> np.ndarray:
    """The logarithm of the accuracy, half a point and half a miss added so that there is one without a point."""
    return np.log((np.asarray(points) + 0.5) / (questions + 1))


class Answers(NamedTuple):
    """What a board's runs scored on one benchmark's questions, summed over clusters of questions."""

    questions: int
    of_clusters: np.ndarray
    """`[runs, clusters]`: points of each run in each cluster."""
    sizes: np.ndarray
    """`[clusters]`: questions in each."""

    @classmethod
    def of(cls, scores: np.ndarray, cluster: np.ndarray) -> Answers:
        """Of `[runs, questions]` points, 0…1, and each question's cluster, of whatever numbers."""
        order = np.argsort(cluster, kind="stable")
        _, starts, sizes = np.unique(cluster[order], return_index=True, return_counts=True)
        return cls(len(cluster), np.add.reduceat(scores[:, order], starts, axis=1), sizes)

    @property
    def points(self) -> np.ndarray:
        """`[runs]`: points of each run."""
        return self.of_clusters.sum(1)

    def levels(self) -> np.ndarray:
        """`[runs]`: each run's."""
        return level_of(self.points, self.questions)

    def deviations(self) -> np.ndarray:
        """`[runs, clusters]`: by how many points each cluster differs from as many average questions of the run."""
        return self.of_clusters - self.points[:, None] / self.questions * self.sizes


class Board:
    """The finished runs that can be compared, and their answers by benchmark.

    `losses` are the early losses of all runs that a recipe started, by recipe and seed, where some recipes' seeds were
    picked by them: what is said is then of the recipe, not of the choice.
    """

    def __init__(
        self,
        runs: Sequence[RunKey],
        answers: Mapping[str, Answers],
        losses: Mapping[str, Mapping[int, float]] | None = None,
    ) -> None:
        self.runs, self.answers, self.losses = list(runs), dict(answers), losses or {}
        self.recipes, self.benchmarks = list(dict.fromkeys(recipe for recipe, _ in runs)), list(answers)

    @classmethod
    def read(
        cls,
        runs: Sequence[RunKey],
        benchmarks: Sequence[str],
        read: Reader,
        losses: Mapping[str, Mapping[int, float]] | None = None,
    ) -> Board:
        """Of runs' results, each read once; raises ValueError where runs answer other questions."""
        return cls(runs, {name: _read(name, runs, read) for name in benchmarks if runs}, losses)

    def seeds(self, recipe: str) -> int:
        """Number of the recipe's finished runs."""
        return sum(name == recipe for name, _ in self.runs)

    def difference(self, first: str, second: str, benchmark: str | None = None) -> Difference | None:
        """Of the first recipe's level less the second's; in accuracy, 0…1, where a benchmark is named.

        None where nothing is known of the scatter between runs. Raises ValueError where runs answer other questions.
        """
        if not self.runs:
            return None
        return self._comparison(benchmark).difference(self.recipes.index(first), self.recipes.index(second))

    @property
    def levels(self) -> Comparison:
        """What is said by the level, the mean over the benchmarks of the accuracies' logarithms."""
        return self._comparison(None)

    def adjusted(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """p of each pair's difference of levels, adjusted for all of these pairs."""
        number = {name: at for at, name in enumerate(self.recipes)}
        return self.levels.adjusted([(number[first], number[second]) for first, second in pairs])

    def mean_difference(self, first: str, second: str) -> Difference | None:
        """Of the recipes' mean accuracies over the benchmarks."""
        comparison = self._compared([(answers, False) for answers in self.answers.values()])
        return comparison.difference(self.recipes.index(first), self.recipes.index(second))

    @cached_method
    def _comparison(self, benchmark: str | None) -> Comparison:
        if benchmark is not None:
            return self._compared([(self.answers[benchmark], False)])
        return self._compared([(answers, True) for answers in self.answers.values()])

    def _compared(self, parts: Sequence[tuple[Answers, bool]]) -> Comparison:
        """By the mean over benchmarks, of each whether its accuracies' logarithms count."""
        levels, clusters = [], []
        for answers, is_log in parts:
            points = answers.points
            levels.append(answers.levels() if is_log else points / answers.questions)
            slope = 1 / (points + 0.5) if is_log else np.full(len(points), 1 / answers.questions)
            clusters.append(answers.deviations() * slope[:, None])
        added = np.hstack(clusters) / len(parts)
        return Comparison(self._design, np.mean(levels, axis=0), added @ added.T)

    @cached_property
    def _design(self) -> Design:
        recipe = np.array([self.recipes.index(name) for name, _ in self.runs])
        return Design(recipe, np.array([seed for _, seed in self.runs]), self._losses() if self.losses else None)

    def _losses(self) -> Losses:
        """A recipe without losses has all its runs, so that their losses have nothing to correct."""
        means = {name: float(np.mean(list(found.values()))) for name, found in self.losses.items() if found}
        known = [(name, self.losses.get(name, {}).get(seed)) for name, seed in self.runs]
        loss = np.array([0.0 if loss is None else loss - means[name] for name, loss in known])
        started = np.array([len(self.losses.get(name, ())) or self.seeds(name) for name in self.recipes])
        within = [loss - means[name] for name in means for loss in self.losses[name].values()]
        return Losses(loss, started, float(np.square(within).sum()) / max(1, len(within) - len(means)))


def _read(benchmark: str, runs: Sequence[RunKey], read: Reader) -> Answers:
    """Points of all runs; questions of one picture are one cluster."""
    questions: list[str] = []
    groups: list[str] = []
    scores = np.empty((len(runs), 0))
    for at, run in enumerate(runs):
        rows = read(run, benchmark)["per_question"]
        if not at:
            questions = [row["id"] for row in rows]
            groups = [str(row.get("group", row["id"])) for row in rows]
            scores = np.empty((len(runs), len(rows)))
        if [row["id"] for row in rows] != questions:
            raise ValueError(
                f"the {benchmark} results of {', '.join(dict(runs))} answer different questions and cannot be "
                f"compared; score them again: {make('run', AGAIN='score_answers')}"
            )
        scores[at] = [row["score"] for row in rows]
    return Answers.of(scores, np.unique(groups, return_inverse=True)[1])

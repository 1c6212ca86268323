"""Recipes compared: what their runs say of them, and how sure that is.

A run has one level, such as the mean over the benchmarks of log((points + ½) / (questions + 1)), so that a difference
of two levels is the log of a ratio. Levels are fitted by least squares as recipe + seed over the whole board; a seed
that only one recipe ran counts as an average one. What is left over is the scatter between runs, which all recipes
share, but a recipe whose runs scatter more has its own. On top of it comes the choice of the questions: the
part of a difference that stays with questions from run to run, found by moments over clusters of questions (those of
one picture, rotations of one question). Degrees of freedom are those of the runs alone.

Where seeds were picked by an early loss, the board is fitted as recipe + seed + slope × loss, each recipe's loss taken
from the mean of all the runs that it started: the regression estimate under double sampling (Cochran, Sampling
Techniques, 1977, chapter 12).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import sparse, special

SIGNIFICANCE = 0.05
TINY = 1e-9
DRAWS = 10_000
OWN_SCATTER = 0.8
"""A recipe's own scatter counts where fewer than a fifth of recipes that scatter as all do show as much (F)."""


class Difference(NamedTuple):
    """Of two levels: their difference, its standard error and 95 % interval, and p against no difference."""

    mean: float
    error: float
    low: float
    high: float
    p: float


class Losses(NamedTuple):
    """Early losses of the runs of a board, among them those by which seeds were picked."""

    loss: np.ndarray
    """`[runs]`: less the mean of all runs that the recipe started."""
    started: np.ndarray
    """`[recipes]`: runs that each recipe started."""
    variance: float
    """Of the losses of all started runs, within recipes."""


class Design:
    """The least-squares fit of a board: which recipe and seed each run is of, both numbered; every recipe has a run."""

    def __init__(self, recipe: np.ndarray, seed: np.ndarray, losses: Losses | None = None) -> None:
        runs, recipes = len(recipe), int(recipe.max()) + 1
        self.losses = losses
        self.recipes = _indicators(recipe)
        self.seeds = _indicators(np.unique(seed, return_inverse=True)[1])
        given = [] if losses is None else [losses.loss[:, None]]
        without = np.hstack([self.recipes, *given])
        columns = np.hstack([without, _shared_seeds(self.recipes, self.seeds)])
        solved = np.linalg.pinv(columns)
        self.estimator = solved[:recipes]
        """`[recipes, runs]`: a recipe's estimate is the product of its row and the levels."""
        self.slope = np.zeros(runs) if losses is None else solved[recipes]
        """`[runs]`: its product with the levels is what a loss higher by 1 adds to the level."""
        self.residual = np.eye(runs) - columns @ solved
        """`[runs, runs]`: maps levels to what is left over."""
        self.freedom = runs - int(np.linalg.matrix_rank(columns))
        self.left = np.diag(self.residual).clip(0)
        """The share of each run's variance that its residual keeps."""
        self.of_seeds = np.eye(runs) - without @ np.linalg.pinv(without) - self.residual
        """`[runs, runs]`: the projection on what seeds explain beside recipes."""
        self.seeds_expected = float(np.einsum("rs,rq,qs->", self.seeds, self.of_seeds, self.seeds))
        self.seed_freedom = round(float(np.trace(self.of_seeds)))

    def by_recipe(self, squares: np.ndarray) -> np.ndarray:
        """`[recipes]`: variance of a recipe's runs, from squares of their residuals; NaN where nothing is left over."""
        left = self.left @ self.recipes
        repeated = (self.recipes.sum(0) > 1) & (left > TINY)
        return np.divide(squares @ self.recipes, left, out=np.full(len(left), np.nan), where=repeated)


def _indicators(codes: np.ndarray) -> np.ndarray:
    return (codes[:, None] == np.arange(codes.max() + 1)).astype(float)


def _shared_seeds(recipes: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Columns of the seeds that several recipes ran; among recipes that seeds connect, they add up to 0."""
    crossed = (recipes.T @ seeds) > 0
    several = crossed.sum(0) > 1
    shared = seeds[:, several]
    if not shared.shape[1]:
        return shared
    crossed = crossed[:, several]
    links = sparse.csr_matrix(crossed.T.astype(float) @ crossed)
    _, component = sparse.csgraph.connected_components(links, directed=False)
    member = _indicators(component)
    return shared - shared @ member / member.sum(0) @ member.T


class Comparison:
    """What a board says of its recipes by one kind of level."""

    def __init__(self, design: Design, level: np.ndarray, noise: np.ndarray | None = None) -> None:
        """`level` is `[runs]`. `noise` is `[runs, runs]`: products, summed over clusters of questions, of what each
        cluster adds to each run's level; None where results have no questions.
        """
        self.design, self.level, self.noise = design, level, noise
        self.estimates = design.estimator @ level
        """`[recipes]`: levels of the recipes."""
        self.freedom = design.freedom
        self._residuals = design.residual @ level

    @cached_property
    def scatter(self) -> float:
        """Variance between runs of one recipe, all recipes together, beside what seeds have in common; NaN unknown."""
        if self.freedom < 1:
            return float("nan")
        return float(np.square(self._residuals).sum() / self.freedom)

    @cached_property
    def own(self) -> np.ndarray:
        """`[recipes]`: the same of each recipe's own runs; NaN where it has one."""
        return self.design.by_recipe(np.square(self._residuals))

    @property
    def _guarded(self) -> np.ndarray:
        """`[recipes]`: the scatter that all share, or its own where that is larger by more than chance."""
        runs = self.design.recipes.sum(0)
        limit = special.fdtri(np.maximum(runs - 1, 1), max(self.freedom, 1), OWN_SCATTER)
        return np.where(self.own > limit * self.scatter, self.own, self.scatter)

    @cached_property
    def seed_variance(self) -> float:
        """Variance of what all runs of a seed have in common, by moments."""
        design, level = self.design, self.level
        if design.seed_freedom < 1 or design.seeds_expected < TINY:
            return 0.0
        explained = level @ design.of_seeds @ level - design.seed_freedom * self.scatter
        return float(max(0.0, explained / design.seeds_expected))

    @cached_property
    def covariance(self) -> np.ndarray:
        """`[recipes, recipes]` of the estimates, the choice of questions apart."""
        design = self.design
        variance = design.recipes @ self._guarded
        by_seed = design.estimator @ design.seeds
        covariance = design.estimator * variance @ design.estimator.T + self.seed_variance * by_seed @ by_seed.T
        if design.losses is not None:
            slope = float(design.slope @ self.level)
            covariance += np.diag(slope**2 * design.losses.variance / design.losses.started)
        return covariance

    @cached_property
    def of_questions(self) -> np.ndarray:
        """`[recipes, recipes]`: covariance of the estimates over choices of questions, beside that between runs."""
        design, noise = self.design, self.noise
        if noise is None:
            return np.zeros_like(self.covariance)
        squares = np.einsum("ij,ij->i", design.residual @ noise, design.residual)
        pooled = squares.sum() / self.freedom if self.freedom else 0.0
        own = design.by_recipe(squares)
        of_run = design.recipes @ np.where(np.isnan(own), pooled, own)
        estimator = design.estimator
        return estimator @ noise @ estimator.T - estimator * of_run @ estimator.T

    @cached_property
    def variances(self) -> np.ndarray:
        """`[recipes, recipes]`: of each recipe's estimate less each other's."""
        return _of_differences(self.covariance) + np.maximum(0.0, _of_differences(self.of_questions))

    def difference(self, first: int, second: int) -> Difference | None:
        """Of two recipes; None where nothing is known of the scatter between runs."""
        if self.freedom < 1:
            return None
        mean = float(self.estimates[first] - self.estimates[second])
        error = float(np.sqrt(self.variances[first, second]))
        half = float(special.stdtrit(self.freedom, 1 - SIGNIFICANCE / 2)) * error
        p = float(2 * special.stdtr(self.freedom, -abs(mean) / error)) if error else float(mean == 0)
        return Difference(mean, error, mean - half, mean + half, p)

    def adjusted(self, pairs: Sequence[tuple[int, int]]) -> list[float]:
        """p of each pair's difference, so that the chance of any false alarm among all of them stays below the level.

        Step-down by the largest of the remaining t-statistics (Westfall and Young, 1993), drawn with the covariance
        that differences have by their common recipes; never above Holm's, which takes them for unrelated. Needs at
        least one degree of freedom.
        """
        found = [difference for pair in pairs if (difference := self.difference(*pair))]
        plain = np.array([difference.p for difference in found])
        errors = np.array([difference.error for difference in found])
        drawn = self._drawn_differences(np.array(pairs), errors)
        order = np.argsort(plain, kind="stable")
        largest = np.maximum.accumulate(drawn[:, order[::-1]], axis=1)[:, ::-1]
        seen = special.stdtrit(self.freedom, 1 - plain[order] / 2)
        stepwise = ((largest >= seen).sum(0) + 1) / (DRAWS + 1)
        adjusted = np.empty(len(pairs))
        adjusted[order] = np.maximum.accumulate(np.maximum(stepwise, plain[order]))
        return np.minimum(adjusted, holm(plain.tolist())).tolist()

    def _drawn_differences(self, pairs: np.ndarray, errors: np.ndarray) -> np.ndarray:
        """`[draws, pairs]`: absolute t-statistics where nothing differs."""
        generator = np.random.default_rng(0)
        recipes = len(self.covariance)
        room = TINY * max(float(np.trace(self.covariance)), TINY)
        root = np.linalg.cholesky(self.covariance + room * np.eye(recipes))  # not by eigenvectors, which rounding turns
        normal = generator.standard_normal((DRAWS, recipes)) @ root.T
        scale = np.sqrt(generator.chisquare(self.freedom, (DRAWS, 1)) / self.freedom)
        between = np.sqrt(_of_differences(self.covariance)[tuple(pairs.T)])
        apart = np.sqrt(np.square(errors) - np.square(between).clip(0, np.square(errors)))
        differences = normal[:, pairs[:, 0]] - normal[:, pairs[:, 1]]
        differences += apart * generator.standard_normal(differences.shape)
        return np.abs(differences) / np.maximum(errors, TINY) / scale


def _of_differences(covariance: np.ndarray) -> np.ndarray:
    own = np.diag(covariance)
    return own[:, None] + own[None, :] - 2 * covariance


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979): the chance of any false alarm among all comparisons stays below the level."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = highest
    return adjusted

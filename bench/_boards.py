"""Simulated boards: runs of known skill answer questions of known ease, so that what is true of their recipes is known.

Two benchmarks have the contest's sizes: 5,000 questions on 3,166 pictures with marks of 0.3 to 1, and 1,176 questions,
right when all their rotations are. A question is right where skill + its picture's ease + its own ease + what
the recipe makes of it + chance exceed 0, all normal. Runs of one seed may have part of their luck in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import stats

PICTURE_EASE = OWN_EASE = 0.7
OF_RECIPE = 0.4
"""Standard deviation of what a recipe makes of a question, beside 1 for chance."""
BOTH = 0.5
"""Correlation of a run's luck on the two benchmarks."""
LIMITS = (0.004, 0.96)
MARKS = (1.0, 1.0, 1.0, 0.9, 0.6, 0.3)


class World(NamedTuple):
    """How good runs are, and how they scatter."""

    accuracy: tuple[float, float]
    """Mean over runs of the baseline, on the two benchmarks."""
    deviation: tuple[float, float]
    """Standard deviation between runs of a recipe, in accuracy, or of its logarithm where `is_relative`."""
    is_relative: bool = False
    low: tuple[float, float] | None = None
    """Accuracies of runs that do not align, half of all; those of `accuracy` do."""
    questions: tuple[int, int] = (5000, 1176)
    pictures: int = 3166


WORLDS = {
    "tame": World((0.36, 0.36), (0.008, 0.03)),
    "wild": World((0.36, 0.36), (0.021, 0.05)),
    # with room for a ratio of three
    "tame_low": World((0.15, 0.12), (0.022, 0.083), is_relative=True),
    "wild_low": World((0.15, 0.12), (0.058, 0.139), is_relative=True),
    "bimodal": World((0.36, 0.36), (0.008, 0.03), low=(0.12, 0.12)),
    "miniature": World((0.10, 0.10), (0.45, 0.45), is_relative=True, questions=(450, 192), pictures=150),
}


class Drawn(NamedTuple):
    """A board as it was drawn: answers as an evaluation finds them, and the luck behind."""

    runs: list[tuple[int, int]]
    """Recipe and seed of each run, recipe 0 the baseline."""
    scores: list[np.ndarray]
    """`[runs, questions]` of each benchmark."""
    clusters: list[np.ndarray]
    luck: np.ndarray
    """`[runs]`: of both benchmarks together, standard normal."""


def ratios(recipes: int, ratio: float = 1, every: int = 1) -> np.ndarray:
    """`[recipes, 2]`: accuracies over the baseline's; each `every`-th recipe beside it has the ratio."""
    made = np.ones((recipes, 2))
    made[1::every] = ratio
    return made


def draw(
    world: World,
    seeds: Sequence[int],
    generator: np.random.Generator,
    *,
    common: float = 0.0,
    ratio: np.ndarray | None = None,
    aligns: Sequence[float | None] | None = None,
    louder: Sequence[float] | None = None,
) -> Drawn:
    """A board of so many seeds for each recipe.

    `common` is the share of a run's luck that all runs of its seed have; `ratio` as `ratios` makes it; `aligns` each
    recipe's chance to align, in a world with two heaps, None for a recipe that lies between them.
    """
    runs = [(recipe, seed) for recipe, number in enumerate(seeds) for seed in range(number)]
    recipe, seed = np.array(runs).T
    luck = _luck(seed, common, generator)
    if louder is not None:
        luck *= np.array(louder)[recipe][:, None]
    wanted = np.clip(_accuracies(world, recipe, seed, luck, common, ratio, aligns, generator), *LIMITS)
    scores, clusters = [], []
    for which in range(2):
        clusters.append(cluster := _clusters(world, which))
        right = _answered(wanted[:, which], recipe, cluster, generator)
        scores.append(right if which else right * generator.choice(np.array(MARKS, dtype=np.float32), len(cluster)))
    return Drawn(runs, scores, clusters, luck.mean(1) / np.sqrt((1 + BOTH) / 2))


def _luck(seed: np.ndarray, common: float, generator: np.random.Generator) -> np.ndarray:
    """`[runs, 2]`, standard normal on each benchmark."""

    def pairs(number: int) -> np.ndarray:
        shared = generator.standard_normal((number, 1))
        return np.sqrt(BOTH) * shared + np.sqrt(1 - BOTH) * generator.standard_normal((number, 2))

    return np.sqrt(common) * pairs(seed.max() + 1)[seed] + np.sqrt(1 - common) * pairs(len(seed))


def _accuracies(world, recipe, seed, luck, common, ratio, aligns, generator) -> np.ndarray:
    mean = np.array(world.accuracy) * (np.ones((recipe.max() + 1, 2)) if ratio is None else ratio)[recipe]
    deviation = np.array(world.deviation)
    if world.is_relative:
        return mean * np.exp(deviation * luck - deviation**2 / 2)
    if world.low is None:
        return mean + deviation * luck
    chances = np.array([0.5 if aligns is None else aligns[one] for one in recipe], dtype=float)
    latent = np.sqrt(common) * generator.standard_normal(seed.max() + 1)[seed]
    latent += np.sqrt(1 - common) * generator.standard_normal(len(seed))
    middle = np.sqrt(np.array(world.low) * world.accuracy)  # the logarithm's mean of both heaps
    aligned = (latent < stats.norm.ppf(chances))[:, None]
    heap = np.where(np.isnan(chances)[:, None], middle, np.where(aligned, mean, np.array(world.low)))
    return heap + deviation * luck


@cache
def _cluster(questions: int, pictures: int) -> np.ndarray:
    return np.arange(questions) * pictures // questions


def _clusters(world: World, which: int) -> np.ndarray:
    """The picture of each question, in order; of the second benchmark each question is its own."""
    return _cluster(world.questions[which], world.questions[1] if which else world.pictures)


def _answered(
    wanted: np.ndarray, recipe: np.ndarray, cluster: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """`[runs, questions]`, 1 where right: as often as wanted, over all questions there could be."""
    normal = generator.standard_normal
    ease = PICTURE_EASE * normal(cluster[-1] + 1, dtype=np.float32)[cluster]
    ease += OWN_EASE * normal(len(cluster), dtype=np.float32)
    of_recipe = ease + np.float32(OF_RECIPE) * normal((recipe.max() + 1, len(cluster)), dtype=np.float32)
    spread = np.sqrt(1 + PICTURE_EASE**2 + OWN_EASE**2 + OF_RECIPE**2)
    chance = normal((len(recipe), len(cluster)), dtype=np.float32)
    chance += (spread * stats.norm.ppf(wanted)).astype(np.float32)[:, None]
    chance += of_recipe[recipe]
    return (chance > 0).astype(np.float32)


@cache
def true_levels(
    world: World, ratio: float = 1.0, aligns: float | None = 0.5, draws: int = 400_000
) -> tuple[float, float]:
    """What a recipe's runs give on average: level, and accuracy over the baseline's, means of the benchmarks."""
    generator = np.random.default_rng(7)
    recipe = np.zeros(draws, dtype=int)
    luck = _luck(np.arange(draws), 0.0, generator)
    shape = np.full((1, 2), ratio)
    of = _accuracies(world, recipe, np.arange(draws), luck, 0.0, shape, [aligns], generator).clip(*LIMITS)
    return float(np.log(of).mean()), float((of.mean(0) / _baseline(world)).mean())


@cache
def _baseline(world: World) -> np.ndarray:
    generator = np.random.default_rng(7)
    recipe = np.zeros(400_000, dtype=int)
    luck = _luck(np.arange(400_000), 0.0, generator)
    of = _accuracies(world, recipe, np.arange(400_000), luck, 0.0, None, None, generator)
    return of.clip(*LIMITS).mean(0)

"""Other rules by which recipes could be compared with a baseline, on simulated boards: what the present one is held to.

Each takes a board as it was drawn and gives, for each recipe beside the baseline, recipe 0, the score's difference (the
mean over the benchmarks of accuracies over the baseline's), its 95 % interval, and whether it is called different.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from scipy import stats

from bench._boards import Drawn
from bettersynth.report.comparison import SIGNIFICANCE, holm

Said = tuple[float, float, float, bool]
"""Difference, low, high, and whether it is a verdict."""
RESAMPLES = 1000


def old(drawn: Drawn) -> list[Said]:
    """Differences paired over the seeds that both ran and over questions, with Satterthwaite's degrees of freedom.

    The rule of this project's release 0.2, whose word followed the p of each comparison by itself.
    """
    return [(mean, low, high, p <= SIGNIFICANCE) for mean, low, high, p in map(_crossed, _paired(drawn))]


def questions_only(drawn: Drawn) -> list[Said]:
    """A paired test over questions, seeds averaged, with Holm's correction."""
    found = []
    for parts in _paired(drawn):
        by_question = [(differences.mean(0), weight) for differences, weight in parts]
        mean = sum(weight * float(each.mean()) for each, weight in by_question)
        error = np.sqrt(sum(weight**2 * float(each.var(ddof=1)) / len(each) for each, weight in by_question))
        p = float(2 * stats.norm.sf(abs(mean) / error)) if error else float(mean == 0)
        found.append((mean, mean - 1.96 * error, mean + 1.96 * error, p))
    adjusted = holm([p for *_, p in found])
    return [(mean, low, high, p <= SIGNIFICANCE) for (mean, low, high, _), p in zip(found, adjusted, strict=True)]


def bootstrap(drawn: Drawn) -> list[Said]:
    """The percentile interval over resampled seeds and questions: different where it leaves out 0."""
    recipe = np.array([recipe for recipe, _ in drawn.runs])
    means = _means(drawn)
    counts = _resampled(tuple(int(count) for count in np.bincount(recipe)))
    of = []
    for scores, mean in zip(drawn.scores, means, strict=True):
        resampled = scores @ _drawn_again(scores.shape[1]) / scores.shape[1]
        of.append(np.stack([(resampled[recipe == one] * counts[one]).sum(0) for one in range(len(counts))]) / mean)
    ratios = np.mean(of, axis=0)
    differences = ratios[1:] - ratios[0]
    ends = np.quantile(differences, (SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2), axis=1).T
    return [
        (float(each.mean()), low, high, not low <= 0 <= high)
        for each, (low, high) in zip(differences, ends, strict=True)
    ]


RIVALS: dict[str, Callable[[Drawn], list[Said]]] = {
    "old": old,
    "questions_only": questions_only,
    "bootstrap": bootstrap,
}


def _means(drawn: Drawn) -> list[float]:
    """The baseline's mean score on each benchmark, a point at least."""
    first = [at for at, (recipe, _) in enumerate(drawn.runs) if recipe == 0]
    return [max(float(scores[first].mean()), 1 / scores.shape[1]) for scores in drawn.scores]


def _paired(drawn: Drawn) -> Iterator[list[tuple[np.ndarray, float]]]:
    """For each recipe, of each benchmark: `[seeds, questions]` differences of seeds that both ran, and its weight."""
    at = {run: number for number, run in enumerate(drawn.runs)}
    weights = [1 / mean / len(drawn.scores) for mean in _means(drawn)]
    for recipe in range(1, 1 + max(recipe for recipe, _ in drawn.runs)):
        both = [(at[recipe, seed], at[0, seed]) for one, seed in drawn.runs if one == recipe and (0, seed) in at]
        mine, other = (list(each) for each in zip(*both, strict=True))
        yield [(scores[mine] - scores[other], weight) for scores, weight in zip(drawn.scores, weights, strict=True)]


def _crossed(parts: list[tuple[np.ndarray, float]]) -> tuple[float, float, float, float]:
    """Seeds and questions crossed: their variances less the noise that both contain (Owen, 2007)."""
    seeds = len(parts[0][0])
    by_seed = sum(weight * differences.mean(axis=1, dtype=float) for differences, weight in parts)
    mean = float(np.mean(by_seed))
    if seeds < 2:
        return mean, -np.inf, np.inf, 1.0
    terms, noise = [(float(np.var(by_seed, ddof=1)) / seeds, seeds - 1)], 0.0
    for differences, weight in parts:
        questions = differences.shape[1]
        by_question = differences.mean(axis=0)
        terms.append((weight**2 * float(np.var(by_question, ddof=1)) / questions, questions - 1))
        residual = differences - by_question - differences.mean(axis=1, keepdims=True) + differences.mean()
        noise += weight**2 * float(np.square(residual).sum()) / ((seeds - 1) * (questions - 1) * seeds * questions)
    variances = [variance for variance, _ in terms]
    variance = max(sum(variances) - noise, *variances)
    if not variance:
        return mean, mean, mean, float(mean == 0)
    freedom = variance**2 / sum(term**2 / degrees for term, degrees in terms)
    half = stats.t.ppf(1 - SIGNIFICANCE / 2, freedom) * np.sqrt(variance)
    return mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / np.sqrt(variance), freedom))


@cache
def _drawn_again(questions: int) -> np.ndarray:
    """`[questions, resamples]`: how often each question is drawn."""
    generator = np.random.default_rng(questions)
    return generator.multinomial(questions, np.full(questions, 1 / questions), RESAMPLES).T.astype(np.float32)


@cache
def _resampled(seeds: tuple[int, ...]) -> list[np.ndarray]:
    """Of each recipe `[seeds, resamples]`: the share of each seed."""
    generator = np.random.default_rng(len(seeds))
    return [generator.multinomial(n, np.full(n, 1 / n), RESAMPLES).T.astype(np.float32) / n for n in seeds]

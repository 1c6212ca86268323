"""Intervals over seeds, and differences paired over seeds and questions.

A run's accuracy varies with its seed and with the benchmark's choice of questions. Both are samples, so both count:
two recipes are compared run by run and question by question, and the variance of the mean difference is that of
a design in which seeds and questions are crossed (Owen, "The pigeonhole bootstrap", 2007, gives the resampling
form; Miller, "Adding error bars to evals", arXiv:2411.00640, the case for pairing).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95


class Difference(NamedTuple):
    """A mean difference with its 95 % interval and two-sided p-value (against no difference)."""

    mean: float
    low: float
    high: float
    p: float


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean over seeds; None for fewer than two values."""
    if len(values) < 2:
        return None
    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def paired_difference(parts: Sequence[tuple[np.ndarray, float]]) -> Difference | None:
    """The weighted sum of mean differences over benchmarks, with its interval.

    Each part is `(differences, weight)`: `differences[seed, question]` is one recipe's score less the other's,
    for the same seeds in every part and that benchmark's questions. The variance is the seeds' part plus each
    benchmark's questions' part, less the noise that both contain; its degrees of freedom are Satterthwaite's.
    None with fewer than two seeds, since then nothing is known of the spread between seeds.
    """
    seeds = len(parts[0][0])
    if seeds < 2:
        return None
    by_seed = sum(weight * differences.mean(axis=1) for differences, weight in parts)
    mean = float(np.mean(by_seed))
    terms = [(float(np.var(by_seed, ddof=1)) / seeds, seeds - 1)]
    noise = 0.0
    for differences, weight in parts:
        questions = differences.shape[1]
        by_question = differences.mean(axis=0)
        terms.append((weight**2 * float(np.var(by_question, ddof=1)) / questions, questions - 1))
        residual = differences - by_question - differences.mean(axis=1, keepdims=True) + differences.mean()
        noise += weight**2 * float(np.square(residual).sum()) / ((seeds - 1) * (questions - 1) * seeds * questions)
    variances = [variance for variance, _ in terms]
    variance = max(sum(variances) - noise, *variances)
    if variance == 0:
        return Difference(mean, mean, mean, float(mean == 0))
    freedom = variance**2 / sum(term**2 / degrees for term, degrees in terms)
    half = stats.t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(variance)
    p = 2 * stats.t.sf(abs(mean) / np.sqrt(variance), freedom)
    return Difference(mean, float(mean - half), float(mean + half), float(p))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979): the chance of any false alarm among all comparisons stays below the level."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = highest
    return adjusted

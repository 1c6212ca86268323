"""What a board says of its recipes in words: beside a baseline, each beside each, and which lead."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy import special

from bettersynth.report.board import Board
from bettersynth.report.comparison import SIGNIFICANCE, Difference, holm

POWER = 0.8
EQUAL_RATIO = 1.05
"""Two recipes are called equal when the 90 % interval of their ratio lies within this and its inverse."""
MOST_SEEDS = 100
LEAST_RUNS, LEAST_FREEDOM = 5, 2
"""With fewer, runs that happen to agree look as if nothing scattered: where runs align or not, one board in eight."""
LEAST_TO_SHRINK = 4
"""Recipes: the mean of fewer says too little of where the highest belongs (James and Stein, 1961)."""
UNKNOWN_SCATTER = "no recipe has two finished seeds, so nothing is known of the scatter between runs"
TOO_FEW = "so few runs say too little of the scatter between them; a third seed each, or a further recipe, does"


class Judged(NamedTuple):
    """What is said of a recipe beside another: the ratio of their levels and the word for it."""

    ratio: float
    low: float
    high: float
    """95 % interval of the ratio."""
    p: float
    p_adjusted: float
    """Adjusted for the other comparisons of the family; the word follows it."""
    detectable: float
    """The ratio that so many seeds find in four of five boards."""
    verdict: str
    basis: str


def judge(board: Board, pairs: Mapping[str, str]) -> dict[str, Judged | None]:
    """Each recipe beside the other that it is given with, p-values adjusted for all of these pairs.

    None where no recipe has two finished seeds. Raises KeyError for a recipe that is not on the board.
    """
    if not board.runs or not pairs or board.levels.freedom < 1:
        return dict.fromkeys(pairs)
    known = {name: board.difference(name, other) for name, other in pairs.items()}
    adjusted = iter(board.adjusted(list(pairs.items())))
    return {name: found and _judged(board, name, pairs[name], found, next(adjusted)) for name, found in known.items()}


def _judged(board: Board, name: str, other: str, found: Difference, p_adjusted: float) -> Judged:
    freedom = board.levels.freedom
    reach = float(special.stdtrit(freedom, 1 - SIGNIFICANCE / 2) + special.stdtrit(freedom, POWER)) * found.error
    ratio, low, high = (math.exp(value) for value in (found.mean, found.low, found.high))
    verdict = _word(board, found, p_adjusted)
    basis = TOO_FEW if verdict == "not tested" else _basis(board, name, other, verdict, found, reach)
    return Judged(ratio, low, high, found.p, p_adjusted, math.exp(reach), verdict, basis)


def _word(board: Board, found: Difference, p_adjusted: float) -> str:
    freedom = board.levels.freedom
    if freedom < LEAST_FREEDOM or len(board.runs) < LEAST_RUNS:
        return "not tested"
    if p_adjusted <= SIGNIFICANCE:
        return "better" if found.mean > 0 else "worse"
    if found.p <= SIGNIFICANCE:
        return "leaning"
    half = float(special.stdtrit(freedom, 1 - SIGNIFICANCE)) * found.error
    return "equal" if abs(found.mean) + half <= math.log(EQUAL_RATIO) else "not distinguishable"


def _basis(board: Board, name: str, other: str, verdict: str, found: Difference, reach: float) -> str:
    """How many seeds say so, and what else is to be known."""
    mine, others = board.seeds(name), board.seeds(other)
    basis = f"with {counted(mine)}" if mine == others else f"with {counted(mine)} against {others}"
    if min(mine, others) == 1:
        basis += ", a single one's scatter taken from the other recipes"
    if verdict == "leaning":
        side = "better" if found.mean > 0 else "worse"
        return f"towards {side} {basis}, which does not survive the correction for the other comparisons"
    if verdict == "not distinguishable":
        return f"{basis}; ×{math.exp(reach):.2f} could have been found{_wanted(mine, found, reach)}"
    return basis


def _wanted(seeds: int, found: Difference, reach: float) -> str:
    """How many seeds would find what was seen."""
    if not found.mean:
        return ""
    wanted = math.ceil(seeds * (reach / found.mean) ** 2)
    many = f"more than {MOST_SEEDS}" if wanted > MOST_SEEDS else f"about {wanted}"
    return f", ×{math.exp(found.mean):.2f} would take {many} seeds of each"


def counted(seeds: int) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{seeds} seed{'' if seeds == 1 else 's'}"


class Pair(NamedTuple):
    """Two recipes of a matrix."""

    ratio: float
    p_adjusted: float
    """Adjusted for all pairs."""
    verdict: str


def matrix(board: Board) -> dict[tuple[str, str], Pair]:
    """Every recipe beside every other, both ways; empty where nothing is known of the scatter between runs."""
    pairs = list(combinations(board.recipes, 2))
    known = [found for pair in pairs if (found := board.difference(*pair))]
    said: dict[tuple[str, str], Pair] = {}
    if not known:
        return said
    for (first, second), found, p in zip(pairs, known, holm([found.p for found in known]), strict=True):
        for names, mean in (((first, second), found.mean), ((second, first), -found.mean)):
            said[names] = Pair(math.exp(mean), p, _word(board, found._replace(mean=mean), p))
    return said


def groups(board: Board) -> list[list[str]]:
    """Recipes that cannot be told from the best of them, those of the rest that cannot from the best of these, and on.

    In a group the highest level stands first; p-values are adjusted for all that are held against it (as in Hsu's
    comparisons with the best, 1984). Where nothing is known of the scatter between runs there are no groups.
    """
    if not board.runs or board.levels.freedom < 1:
        return []
    estimates = dict(zip(board.recipes, board.levels.estimates, strict=True))
    left = sorted(estimates, key=lambda name: -estimates[name])
    found = []
    while left:
        best, *others = left
        judged = judge(board, dict.fromkeys(others, best))
        group = [best, *(name for name in others if (one := judged[name]) and one.verdict != "worse")]
        found.append(group)
        left = [name for name in left if name not in group]
    return found


def highest_without_luck(board: Board, baseline: str) -> float | None:
    """The ratio of the highest recipe over the baseline, without what being picked as the highest adds on average.

    Levels are drawn to their mean by as much of their scatter as their errors explain (empirical Bayes; Efron and
    Morris, 1975). None for fewer than four recipes, or where nothing is known of the scatter between runs.
    """
    levels = board.levels
    if len(board.recipes) < LEAST_TO_SHRINK or levels.freedom < 1:
        return None
    estimates, errors = levels.estimates, np.diag(levels.covariance)
    real = max(0.0, float(estimates.var(ddof=1) - errors.mean()))
    best, base = int(estimates.argmax()), board.recipes.index(baseline)
    kept = real / (real + errors[best]) if real else 0.0
    drawn = estimates.mean() + kept * (estimates[best] - estimates.mean())
    return float(math.exp(drawn - estimates[base]))


def compared(board: Board, first: str, second: str) -> Iterator[str]:
    """Lines on one recipe beside another: what both gave, the difference of each benchmark, and the verdict."""
    for benchmark, answers in board.answers.items():
        found = board.difference(first, second, benchmark)
        accuracy = answers.points / answers.questions
        of_both = [accuracy[[name == of for of, _ in board.runs]].mean() for name in (first, second)]
        less = f", {found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f})" if found else ""
        yield f"{benchmark}: {of_both[0]:.4f} and {of_both[1]:.4f}{less}"
    judged = judge(board, {first: second})[first]
    if judged is None:
        yield f"not tested: {UNKNOWN_SCATTER}"
        return
    yield f"{first} over {second}: ×{judged.ratio:.3f} ({judged.low:.3f} to {judged.high:.3f}), p = {judged.p:.4f}"
    yield f"{judged.verdict} {judged.basis}" if judged.verdict != "not tested" else f"not tested: {judged.basis}"

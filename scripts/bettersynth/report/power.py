"""What a board can show before it is run: the difference that so many seeds find, and the seeds that one takes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from scipy import special

from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.report.comparison import SIGNIFICANCE
from bettersynth.report.leaderboard import baseline_of
from bettersynth.report.runs import board_of
from bettersynth.report.verdicts import POWER, counted

PUBLISHED_SCATTER = 0.095
"""Standard deviation of the level over six published runs whose rankings share 97 % of their rows (L2 and L6 to L10 of
the contest's ledger): 2.3 points on TextVQA, 5.3 on MMBench."""
PUBLISHED = "six published runs whose rankings share 97 % of their rows"
LEAST_FREEDOM = 3
SEEDS = (2, 3, 5, 8, 12, 20)
MOST_SEEDS = 10_000
BASELINE_SEEDS = 5


class Plan(NamedTuple):
    """A board that is to be run."""

    recipes: int
    """Beside the baseline."""
    seeds: int
    of_baseline: int
    scatter: float
    """Standard deviation between runs of one recipe, of the level: about a share of the score."""

    def detectable(self) -> float:
        """The ratio that is called better in four of five boards, the correction for all recipes at its strictest."""
        freedom = self.recipes * (self.seeds - 1) + self.of_baseline - 1
        if freedom < 1:
            return math.inf
        error = self.scatter * math.sqrt(1 / self.seeds + 1 / self.of_baseline)
        tail = SIGNIFICANCE / 2 / max(1, self.recipes)
        return math.exp(error * float(special.stdtrit(freedom, 1 - tail) + special.stdtrit(freedom, POWER)))

    def seeds_for(self, ratio: float) -> int | None:
        """Seeds of each recipe, the baseline too, that find this ratio or its inverse; None beyond `MOST_SEEDS`."""
        wanted = max(ratio, 1 / ratio)
        low, high = 1, MOST_SEEDS
        while low < high:
            middle = (low + high) // 2
            found = self._replace(seeds=middle, of_baseline=middle).detectable() <= wanted
            low, high = (low, middle) if found else (middle + 1, high)
        return low if self._replace(seeds=low, of_baseline=low).detectable() <= wanted else None


class Scatter(NamedTuple):
    """How far runs of one recipe lie apart, and how that is known."""

    deviation: float
    source: str


def scatter_of(configuration: Configuration, layout: Layout, stated: float | None = None) -> Scatter:
    """The stated one, that of the finished runs, or the published one where these are too few."""
    if stated is not None:
        return Scatter(stated, "as stated")
    board = board_of(configuration, layout).board if configuration.recipes else None
    if board and board.runs and board.levels.freedom >= LEAST_FREEDOM:
        return Scatter(math.sqrt(board.levels.scatter), f"from the {len(board.runs)} finished runs here")
    return Scatter(PUBLISHED_SCATTER, f"from {PUBLISHED}; too few runs are finished here")


def plan_of(configuration: Configuration, scatter: float) -> Plan:
    """The board of a configuration: the seeds of a recipe are the fewest that one beside the baseline has."""
    baseline = baseline_of(configuration)
    others = [len(recipe.seeds) for name, recipe in configuration.recipes.items() if name != baseline]
    of_baseline = len(configuration.recipes[baseline].seeds) if baseline else 1
    return Plan(len(others), min(others, default=1), of_baseline, scatter)


def sentence(plan: Plan) -> str:
    """What a board can show, in one sentence."""
    seeds = counted(plan.seeds) + (" each" if plan.seeds == plan.of_baseline else f" against {plan.of_baseline}")
    found = plan.detectable()
    if math.isinf(found):
        return "With one seed of each recipe nothing is known of luck, so no difference can be shown."
    return f"With {seeds}, {plan.recipes} recipes beside the baseline: ×{found:.2f} is found in four of five boards."


def told(plan: Plan, scatter: Scatter, wanted: float, hours: float) -> Iterator[str]:
    """Lines for a person; `hours` of a GPU that one run takes, 0 where none is known."""
    yield f"Runs of one recipe scatter by {scatter.deviation:.1%} of their level, {scatter.source}."
    yield sentence(plan)
    if plan.of_baseline < max(BASELINE_SEEDS, plan.seeds):
        yield (
            f"The baseline's luck is in every comparison: give it {BASELINE_SEEDS} seeds or twice those of the others, "
            "the more where runs align or do not."
        )
    yield ""
    yield "  seeds of each      found" + (" GPU-hours" if hours else "")
    for seeds in SEEDS:
        each = plan._replace(seeds=seeds, of_baseline=seeds)
        spent = f"{hours * seeds * (plan.recipes + 1):>10,.0f}" if hours else ""
        yield f"  {seeds:>13}  {f'×{each.detectable():.3f}':>9}{spent}"
    yield ""
    needed = plan.seeds_for(wanted)
    if needed is None:
        yield f"To find ×{wanted:g} takes more than {MOST_SEEDS:,} seeds of each."
    else:
        spent = f", {hours * needed * (plan.recipes + 1):,.0f} GPU-hours" if hours else ""
        yield f"To find ×{wanted:g} takes {counted(needed)} of each{spent}."

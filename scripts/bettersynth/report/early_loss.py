"""Does an early loss tell which seeds do well? The rank correlation of each rung's loss with the score, within recipes.

A run's level is the mean over the benchmarks of log((points + ½) / (questions + 1)). Loss and level less the means of
the run's recipe are ranked over the board: across recipes a loss misleads. The interval is Fisher's with Bonett and
Wright's standard error (Psychometrika 65, 2000), for as many degrees of freedom as the recipes' means leave: it holds
94 to 98 % for 3 to 10 recipes of 2 to 10 seeds. Where seeds were picked by the loss, only those that went on have a
score, so that the correlation is weaker than it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from scipy import stats

from bettersynth.configuration.probe import END
from bettersynth.configuration.recipes import recipe_training
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import CARD, Layout
from bettersynth.core.publish import read_json, write_sealed
from bettersynth.report import charts
from bettersynth.report.board import level_of
from bettersynth.report.runs import Stage1

LEVEL = 0.95
NAMES = {"held_out": "the loss on the held-out pairs", "training": "the training loss"}


class _Run(NamedTuple):
    recipe: str
    seed: int
    stage: Stage1
    level: float | None
    """None for a run without a result."""


def build_early_loss(configuration: Configuration, layout: Layout) -> dict[str, Any]:
    """Write and return `report/early_loss.json`."""
    return write_sealed(layout.early_loss, early_loss_of(configuration, layout))


def early_loss_of(configuration: Configuration, layout: Layout) -> dict[str, Any]:
    """Each rung's loss related to the scores."""
    runs = [run for recipe in configuration.recipes for run in _runs(recipe, configuration, layout)]
    ladders = [recipe_training(configuration, recipe).probe.measured for recipe in configuration.recipes]
    ordered = [*map(str, sorted({step for steps in ladders for step in steps})), END]
    seeds = max((len(recipe.seeds) for recipe in configuration.recipes.values()), default=1)
    found = [told for rung in ordered for by in NAMES if (told := _rung(runs, by, rung, seeds, configuration, layout))]
    stopped = [run for run in runs if run.stage.card["status"] == "stopped"]
    return {
        "rungs": found,
        "sentence": found[0]["sentence"] if found else None,
        "stopped": len(stopped),
        "stopped_hours": round(sum(_spent(run, configuration, layout) for run in stopped) / 3600, 4),
    }


def _spent(run: _Run, configuration: Configuration, layout: Layout) -> float:
    """Seconds of stage 1 that went into a seed that was stopped."""
    folders = [pick.folder for pick in recipe_training(configuration, run.recipe).probe.probes]
    cards = [layout.probe(run.recipe, run.seed, folder) / CARD for folder in folders]
    return float(run.stage.card["seconds"] + sum(read_json(card)["seconds"] for card in cards if card.exists()))


def _runs(recipe: str, configuration: Configuration, layout: Layout) -> Iterator[_Run]:
    """Runs of which there is a card of stage 1."""
    for seed in configuration.recipes[recipe].seeds:
        stage = Stage1.read(layout.pretrain(recipe, seed))
        if stage is not None and "taken_over_from" not in stage.card:  # which would count a run twice
            yield _Run(recipe, seed, stage, _level(recipe, seed, configuration, layout))


def _level(recipe: str, seed: int, configuration: Configuration, layout: Layout) -> float | None:
    levels = []
    for benchmark in configuration.benchmarks:
        path = layout.result(recipe, seed, benchmark)
        result = read_json(path) if path.exists() else {}
        if result.get("status") != "done":
            return None
        questions = result["questions"]
        levels.append(float(level_of(result["accuracy"] * questions, questions)))
    return sum(levels) / len(levels) if levels else None


def _rung(
    runs: list[_Run], by: str, rung: str, seeds: int, configuration: Configuration, layout: Layout
) -> dict[str, Any] | None:
    """What a loss at a rung tells; None where fewer than three runs, beside their recipes' means, have one."""
    known = [(run, loss) for run in runs if run.level is not None and (loss := run.stage.loss(by, rung)) is not None]
    several = {run.recipe for run, _ in known if sum(other.recipe == run.recipe for other, _ in known) > 1}
    known = [(run, loss) for run, loss in known if run.recipe in several]
    if len(known) - len(several) < 3:
        return None
    recipes = [run.recipe for run, _ in known]
    losses = _within(recipes, [loss for _, loss in known])
    levels = _within(recipes, [run.level or 0.0 for run, _ in known])
    correlation = correlate(losses, levels, len(several))
    scatter = math.sqrt(float(levels @ levels) / (len(known) - len(several)))
    told = {
        "rung": rung,
        "by": by,
        "runs": len(known),
        "recipes": len(several),
        **correlation._asdict(),
        **_policy(correlation, scatter, seeds, rung, [run for run, _ in known], layout),
        "points": [
            {"recipe": run.recipe, "seed": run.seed, "loss": round(float(loss), 6), "level": round(float(level), 6)}
            for (run, _), loss, level in zip(known, losses, levels, strict=True)
        ],
    }
    return told | {"sentence": _sentence(told)}


def _within(recipes: list[str], values: list[float]) -> np.ndarray:
    """Values less the means of their recipes."""
    names, numbers = np.unique(recipes, return_inverse=True)
    means = np.bincount(numbers, values, len(names)) / np.bincount(numbers)
    return np.asarray(values) - means[numbers]


class Correlation(NamedTuple):
    """A rank correlation with its 95 % interval."""

    correlation: float
    low: float
    high: float


def correlate(losses: np.ndarray, levels: np.ndarray, recipes: int) -> Correlation:
    """The rank correlation of what is left of losses and levels without the means of so many recipes."""
    if not (np.ptp(losses) and np.ptp(levels)):
        return Correlation(0.0, -1.0, 1.0)
    found = float(stats.spearmanr(losses, levels).statistic)
    freedom = max(1, len(losses) - recipes - 2)
    centre = math.atanh(max(-0.999, min(0.999, found)))
    half = stats.norm.ppf((1 + LEVEL) / 2) * math.sqrt((1 + found**2 / 2) / freedom)
    return Correlation(*(round(value, 4) for value in (found, math.tanh(centre - half), math.tanh(centre + half))))


def best_of(number: int) -> float:
    """By how many standard deviations the best of so many exceeds the mean, on average, in a normal distribution."""
    at = np.linspace(-8, 8, 4001)
    density = number * stats.norm.pdf(at) * stats.norm.cdf(at) ** (number - 1)
    return float(np.trapezoid(at * density, at))


def _policy(
    correlation: Correlation, scatter: float, seeds: int, rung: str, runs: list[_Run], layout: Layout
) -> dict[str, Any]:
    """Going on with the best of `seeds` by the loss: its gain over an average seed, a share, and its cost in runs."""
    most = best_of(seeds) * scatter
    ends = (correlation.correlation, correlation.high, correlation.low)
    gains = [round(math.exp(-each * most) - 1, 4) for each in ends]
    shares = [_share(run, rung, layout) for run in runs]
    share = median(shares)
    return {
        "seeds": seeds,
        "gain": gains[0],
        "gain_low": gains[1],
        "gain_high": gains[2],
        "cost": round(seeds * share + 1 - share, 3),
    }


def _share(run: _Run, rung: str, layout: Layout) -> float:
    """The share of a run's seconds, both stages, that stage 1 takes till the rung."""
    card, other = run.stage.card, layout.finetune(run.recipe, run.seed) / CARD
    each = card["seconds"] / max(1, card["steps"] - card.get("resumed_from_step", 0))
    rest = read_json(other)["seconds"] if other.exists() else 0.0
    steps = card["steps"] if rung == END else int(rung)
    return float(each * steps / (each * card["steps"] + rest or 1.0))


def _sentence(told: dict[str, Any]) -> str:
    """What picking by the loss would buy, and what it costs, in one sentence."""
    when = "at the end of stage 1" if told["rung"] == END else f"after {told['rung']} steps"
    interval = f"95 % interval {told['low']:+.2f} to {told['high']:+.2f}"
    runs = f"{told['runs']} runs of {told['recipes']} recipe{'s' * (told['recipes'] > 1)}"
    known = f"rank correlation {told['correlation']:+.2f}, {interval}, {runs}".replace("-", "−")
    loss = f"{NAMES[told['by']]} {when}"
    policy = f"going on with the best of {told['seeds']} seeds by it costs {told['cost']:.2f} runs instead of one"
    if told["low"] <= 0 <= told["high"]:
        return f"It is not shown that {loss} tells which seeds do well ({known}); {policy}."
    if told["correlation"] > 0:
        return f"Seeds do better the higher {loss} is ({known}); {policy} and lowers the score."
    gain = f"{told['gain']:.0%} ({told['gain_low']:.0%} to {told['gain_high']:.0%})"
    return f"{loss[0].upper()}{loss[1:]} tells which seeds do well ({known}); {policy} and raises the score by {gain}."


def picture(told: dict[str, Any]) -> Markup:
    """The runs of a rung: loss against score, each less its recipe's mean; a colour for each recipe."""
    recipes = list(dict.fromkeys(point["recipe"] for point in told["points"]))
    dots = [
        (point["loss"], point["level"], recipes.index(point["recipe"]), f"{point['recipe']}, seed {point['seed']}")
        for point in told["points"]
    ]
    when = "the end" if told["rung"] == END else f"step {told['rung']}"
    title = f"{NAMES[told['by']]} at {when} against the log of the score, each less its recipe's mean"
    return charts.scatter(title[0].upper() + title[1:], dots)

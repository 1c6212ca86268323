"""What the miniature's run has shown: accuracies of its recipes, and pairs of recipes against each other.

Reads `results/miniature`, so run `make demo` first. A pair's difference is paired over seeds and questions, as in the
leaderboard; `mean` is the mean of the two benchmarks' differences. Intervals are of 95 %.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench import ROOT
from bettersynth.configuration import load
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json

PAIRS = ("matched>unfiltered", "best>matched", "best>unfiltered")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument(
        "--config", type=Path, default=ROOT / "config" / "miniature.yaml", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--pairs", nargs="+", default=PAIRS, metavar="BETTER>WORSE", help="pairs of recipes (default: %(default)s)"
    )


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Every recipe's mean accuracies, then every pair's differences."""
    configuration = load(options.config)
    return figures_of(Layout(Path("results") / str(configuration.name)), options.pairs, list(configuration.benchmarks))


def figures_of(layout: Layout, pairs: Sequence[str], benchmarks: Sequence[str]) -> dict[str, float]:
    """The figures of a run; `pairs` are written `better>worse`."""
    from bettersynth.report.statistics import paired_difference

    leaderboard = read_json(layout.leaderboard)
    figures: dict[str, float] = {}
    for entry in leaderboard["recipes"]:
        if entry["status"] == "done":
            figures[f"{entry['recipe']}_seeds"] = entry[benchmarks[0]]["n"]
            figures |= {f"{entry['recipe']}_{name}": round(entry[name]["mean"], 4) for name in benchmarks}
    for pair in pairs:
        better, worse = pair.split(">")
        seeds = [seed for seed in _done(layout, better) if seed in _done(layout, worse)]
        matrices = {name: _difference(layout, better, worse, seeds, name) for name in benchmarks}
        parts = {name: [(matrix, 1.0)] for name, matrix in matrices.items()}
        parts["mean"] = [(matrix, 1 / len(matrices)) for matrix in matrices.values()]
        for name, part in parts.items():
            if difference := paired_difference(part):
                prefix = f"{better}_less_{worse}_{name}"
                figures |= {f"{prefix}_{key}": round(value, 5) for key, value in difference._asdict().items()}
    return figures


def _done(layout: Layout, recipe: str) -> list[int]:
    """Seeds of a recipe that have results."""
    entries = {entry["recipe"]: entry for entry in read_json(layout.leaderboard)["recipes"]}
    return [run["seed"] for run in entries[recipe]["seeds"] if run["status"] == "done"]


def _difference(layout: Layout, better: str, worse: str, seeds: list[int], benchmark: str):
    """Score less the other's: one row for each seed, one column for each question."""
    import numpy as np

    def scores(recipe: str) -> np.ndarray:
        runs = [read_json(layout.result(recipe, seed, benchmark))["per_question"] for seed in seeds]
        return np.array([[row["score"] for row in run] for run in runs])

    return scores(better) - scores(worse)

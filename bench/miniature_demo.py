"""What the miniature's run has shown: accuracies of its recipes, and pairs of recipes against each other.

Reads `results/miniature`, so run `make demo` first. A pair's difference counts runs and questions, as the
leaderboard's do; `mean` is the mean of the two benchmarks' differences. Intervals are of 95 %.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench import ROOT
from bettersynth.configuration import Configuration, load
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
    return figures_of(configuration, Layout(Path("results") / str(configuration.name)), options.pairs)


def figures_of(configuration: Configuration, layout: Layout, pairs: Sequence[str]) -> dict[str, float]:
    """The figures of a run; `pairs` are written `better>worse`."""
    from bettersynth.report.runs import board_of

    benchmarks = list(configuration.benchmarks)
    leaderboard = read_json(layout.leaderboard)
    figures: dict[str, float] = {}
    for entry in leaderboard["recipes"]:
        if entry["status"] == "done":
            figures[f"{entry['recipe']}_seeds"] = entry[benchmarks[0]]["n"]
            figures |= {f"{entry['recipe']}_{name}": round(entry[name]["mean"], 4) for name in benchmarks}
    board = board_of(configuration, layout).board
    for pair in pairs:
        better, worse = pair.split(">")
        parts = {name: board.difference(better, worse, name) for name in benchmarks}
        for name, found in (parts | {"mean": board.mean_difference(better, worse)}).items():
            if found:
                prefix = f"{better}_less_{worse}_{name}"
                figures |= {f"{prefix}_{key}": round(value, 5) for key, value in found._asdict().items()}
    return figures

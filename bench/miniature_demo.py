"""What the miniature's run has shown: accuracies of its recipes, and pairs of recipes against each other.

Reads `results/miniature`, so run `make demo` first. A pair's difference counts runs and questions, as the
leaderboard's do; `mean` is the mean of the two benchmarks' differences. Intervals are of 95 %.

With `--fresh-seeds` the recipes of the pairs are trained with these seeds, too, in `results/NAME_fresh` and from the
demo's own training files, and compared as a leaderboard of their own: what few seeds have shown must hold there.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import shutil
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

    parser.add_argument("--fresh-seeds", type=int, nargs="+", default=[], metavar="SEED", help="(default: none)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at one time (default: %(default)s)")


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Every recipe's mean accuracies, then every pair's differences; with fresh seeds, their levels' ratios."""
    configuration = load(options.config)
    layout = Layout(Path("results") / str(configuration.name))
    figures = figures_of(configuration, layout, options.pairs)
    if options.fresh_seeds:
        figures |= _fresh(configuration, layout, options)
    return figures


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


# --- fresh seeds ---------------------------------------------------------------------------------

MADE_BEFORE = ("pool", "datasets", "trainsets", "instructions", "benchmarks")
"""What training and answering read of a run, apart from what its configuration names."""


def _fresh(configuration: Configuration, demo: Layout, options: argparse.Namespace) -> dict[str, float]:
    from bettersynth.report.runs import board_of
    from bettersynth.report.verdicts import judge

    names = list(dict.fromkeys(itertools.chain(*(pair.split(">") for pair in options.pairs))))
    recipes = {name: configuration.recipes[name].model_copy(update={"seeds": options.fresh_seeds}) for name in names}
    configuration = configuration.model_copy(update={"recipes": recipes})
    layout = Layout(demo.root.with_name(f"{demo.root.name}_fresh"))
    for part in MADE_BEFORE:
        shutil.copytree(demo.root / part, layout.root / part, dirs_exist_ok=True)
    for path in demo.root.glob("*.json"):
        shutil.copy2(path, layout.root)
    os.environ["OMP_NUM_THREADS"] = "1"  # read where torch is imported, in the processes to come
    with multiprocessing.get_context("spawn").Pool(options.jobs, maxtasksperchild=1) as pool:
        runs = [(name, seed) for seed in options.fresh_seeds for name in names]
        work = [(*run, configuration, layout) for run in runs if not _is_scored(*run, configuration, layout)]
        pool.starmap(_run, work, chunksize=1)
    board = board_of(configuration, layout).board
    figures: dict[str, float] = {}
    for name in names:
        figures[f"fresh_{name}_seeds"] = board.seeds(name)
        for benchmark in configuration.benchmarks:
            results = [read_json(layout.result(name, seed, benchmark)) for seed in options.fresh_seeds]
            found = [result["accuracy"] for result in results if "accuracy" in result]
            figures[f"fresh_{name}_{benchmark}"] = round(sum(found) / len(found), 4)
    for pair in options.pairs:
        better, worse = pair.split(">")
        judged = judge(board, {better: worse})[better]
        for key in ("ratio", "low", "high", "p"):
            figures[f"fresh_{better}_over_{worse}_{key}"] = float(f"{getattr(judged, key):.4g}")
    return figures


def _is_scored(recipe: str, seed: int, configuration: Configuration, layout: Layout) -> bool:
    """Whether there are results of a run of the training file of now."""
    from bettersynth.report.runs import is_of_other_pairs

    there = all(layout.result(recipe, seed, benchmark).exists() for benchmark in configuration.benchmarks)
    return there and not is_of_other_pairs(layout, recipe, seed)


def _run(recipe: str, seed: int, configuration: Configuration, layout: Layout) -> None:
    """Train, answer and score one run."""
    from bettersynth.evaluation.answering import write_answers
    from bettersynth.evaluation.scoring import score_answers
    from bettersynth.training.mgm.training import finetune, pretrain

    pretrain(recipe, seed, configuration, layout)
    finetune(recipe, seed, configuration, layout)
    write_answers(recipe, seed, configuration, layout)
    scores = [score_answers(benchmark, recipe, seed, configuration, layout) for benchmark in configuration.benchmarks]
    print(f"{recipe} seed {seed}:", *(f"{score['benchmark']} {score.get('accuracy')}" for score in scores), flush=True)

"""How often the words of the leaderboard are true: error rates, coverage and power on simulated boards.

Boards of known truth go through the code that compares a run's results, beside the rule of release 0.2, a test over
questions alone and a percentile bootstrap. A false verdict is `better` or `worse` of a recipe that differs by nothing,
or the wrong one of both; a board counts once. Some boards of each cell go through result files, and must say the same.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from bench._boards import Drawn
    from bettersynth.report.board import Board
    from bettersynth.report.verdicts import Judged

CHUNK = 50
"""Boards of a task of a worker."""
OURS = "ours"
PICKED_CORRELATION = 0.9
KEPT, STARTED = 2, 5
MINIATURE_RATIO = 3.75
"""Of the miniature's best recipe over its unfiltered pool, with ten seeds."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--boards", type=int, default=2000, help="boards a cell (default: %(default)s)")
    parser.add_argument(
        "--rival-boards", type=int, default=300, help="of these, for other rules (default: %(default)s)"
    )
    parser.add_argument("--file-boards", type=int, default=2, help="of these, through files (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="(default: all cores)")
    parser.add_argument("--only", default="", help="cells whose names contain this")


class Cell(NamedTuple):
    """One kind of board."""

    kind: str
    """What it is counted for: null, gamble, ratio, power, picked, one_seed."""
    name: str
    world: str
    seeds: tuple[int, ...]
    """Of each recipe, the baseline first."""
    common: float = 0.0
    """Share of a run's luck that all runs of its seed have."""
    ratio: float = 1.0
    """Accuracies of the recipes that differ, over the baseline's."""
    every: int = 1
    """Which recipes those are: each so-many-th."""
    louder: float = 1.0
    """By how much runs of every third recipe, the baseline the first, scatter more than those of the others."""
    gambles: bool = False
    """The baseline aligns or not; of the others every third always does, never, or lies between."""
    picked: bool = False
    """All but the baseline keep the best seeds by an early loss."""


def cells() -> Iterator[Cell]:
    """All kinds of boards."""
    worlds = ("tame", "wild", "bimodal", "miniature")
    for world in worlds:
        for common in (0.0, 0.7):
            for recipes in (1, 8, 30):
                for seeds in (2, 3, 5):
                    name = f"null_{world}_{common:g}_{recipes}_recipes_{seeds}_seeds"
                    yield Cell("null", name, world, (seeds,) * (recipes + 1), common)
                unequal = tuple((5, 2, 3)[at % 3] for at in range(recipes + 1))
                yield Cell("null", f"null_{world}_{common:g}_{recipes}_recipes_unequal", world, unequal, common)
    for recipes in (8, 30):
        for seeds in (2, 3, 5):
            name = f"uneven_{recipes}_recipes_{seeds}_seeds"
            yield Cell("uneven", name, "tame", (seeds,) * (recipes + 1), louder=3)
    for world in worlds:
        for common in (0.0, 0.7):
            yield Cell("one_seed", f"one_seed_{world}_{common:g}", world, (3, 3, 3, 3, 3, 1, 1, 1, 1), common)
    for recipes in (8, 30):
        for seeds in (2, 3, 5):
            for of_baseline in (seeds, max(5, 2 * seeds)):
                name = f"gamble_{recipes}_recipes_{seeds}_seeds_{of_baseline}_of_baseline"
                kind = "gamble_equal_seeds" if of_baseline == seeds else "gamble"
                yield Cell(kind, name, "bimodal", (of_baseline,) + (seeds,) * recipes, gambles=True)
    for world in ("tame_low", "wild_low", "miniature"):
        for seeds in (2, 3, 5):
            yield Cell("ratio", f"ratio_3_{world}_{seeds}_seeds", world, (seeds,) * 9, ratio=3, every=2)
    yield Cell("power_miniature", "power_miniature", "miniature", (3,) * 9, ratio=MINIATURE_RATIO, every=8)
    for common in (0.0, 0.35, 0.7):
        kind = "power" if common else "power_10_points"
        yield Cell(kind, f"power_10_points_{common:g}", "wild", (3,) * 9, common, ratio=46 / 36, every=8)
    for world in worlds:
        for common in (0.0, 0.7):
            yield Cell("picked", f"picked_{world}_{common:g}", world, (STARTED,) * 9, common, picked=True)


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Every cell's rates, in per cent, and the largest and smallest of each kind."""
    for library in ("OPENBLAS", "OMP", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    chosen = [cell for cell in cells() if options.only in cell.name]
    tasks = [(cell, first, options) for cell in chosen for first in range(0, options.boards, CHUNK)]
    tasks.sort(key=lambda task: -len(task[0].seeds))
    totals: dict[str, Counter[str]] = {cell.name: Counter() for cell in chosen}
    with ProcessPoolExecutor(options.processes) as pool:
        for (cell, *_), counts in zip(tasks, pool.map(_count, *zip(*tasks, strict=True)), strict=True):
            totals[cell.name] += counts
    return dict(_figures(chosen, totals)) | ({} if options.only else large_board())


def large_board() -> dict[str, float]:
    """Seconds of a processor and memory of all that is said of 60 recipes of five seeds, from result files on."""
    import numpy as np

    from bench._boards import WORLDS, draw
    from bettersynth.report import verdicts
    from bettersynth.report.heaps import heaps

    with tempfile.TemporaryDirectory() as folder:
        runs = write_results(draw(WORLDS["wild"], (5,) * 60, np.random.default_rng(0)), Path(folder))
        started = time.process_time()
        board = read_results(runs, Path(folder))
        judge(board)
        verdicts.matrix(board)
        verdicts.groups(board)
        heaps(board)
        seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {"board_of_60_recipes_cpu_seconds": round(seconds, 2), "board_of_60_recipes_peak_mb": round(peak)}


def _figures(chosen: Sequence[Cell], totals: dict[str, Counter[str]]) -> Iterator[tuple[str, float]]:
    from bench._rivals import RIVALS

    def percents(rule: str, what: str, kinds: Sequence[str], least_recipes: int = 1) -> list[float]:
        found = [totals[cell.name] for cell in chosen if cell.kind in kinds and len(cell.seeds) > least_recipes]
        return [round(100 * c[f"{rule} {what}"] / c[f"{rule} {what} of"], 2) for c in found if c[f"{rule} {what} of"]]

    for rule in (OURS, *RIVALS):
        prefix = "" if rule == OURS else f"{rule}_"
        for kind in ("null", "gamble", "gamble_equal_seeds", "uneven", "picked", "one_seed"):
            if found := percents(rule, "false", [kind]):
                yield f"{prefix}{kind}_false_percent_largest", max(found)
        if found := percents(rule, "covered", ["null", "ratio"]):
            yield f"{prefix}coverage_percent_smallest", min(found)
            yield f"{prefix}coverage_percent_largest", max(found)
        if rule == OURS and (found := percents(rule, "covered", ["null", "ratio"], least_recipes=8)):
            yield "coverage_of_8_recipes_and_more_percent_smallest", min(found)
            yield "coverage_of_8_recipes_and_more_percent_largest", max(found)
        for kind in ("power_miniature", "power_10_points"):
            if found := percents(rule, "found", [kind]):
                yield f"{prefix}{kind}_percent", max(found)
    for cell in chosen:
        counts = totals[cell.name]
        for what in ("false", "covered", "found"):
            if counts[f"{OURS} {what} of"]:
                share = counts[f"{OURS} {what}"] / counts[f"{OURS} {what} of"]
                yield f"{cell.name}_{what}_percent", round(100 * share, 2)


def _count(cell: Cell, first: int, options: argparse.Namespace) -> Counter[str]:
    """What a chunk of a cell's boards came to, by rule."""
    import numpy as np

    from bench._rivals import RIVALS

    counts: Counter[str] = Counter()
    for number in range(first, min(first + CHUNK, options.boards)):
        drawn, losses, truth = drawn_board(cell, np.random.default_rng([number, *cell.name.encode()]))
        judged = judge(as_board(drawn, losses))
        if number < options.file_boards and losses is None:
            by_files = judge(through_files(drawn))
            assert all(map(_are_alike, judged, by_files)), f"{cell.name}: through files its verdicts are others"
        # of a board that is too small for a verdict its interval is no claim either
        said = [
            (np.log(one.ratio), np.log(one.low), np.log(one.high), {"better": 1, "worse": -1}.get(one.verdict, 0))
            if one and one.verdict != "not tested"
            else None
            for one in judged
        ]
        _tell(counts, OURS, cell, said, truth[0])
        if number < options.rival_boards:
            for rule, compare in RIVALS.items():
                words = [(mean, low, high, int(np.sign(mean)) * called) for mean, low, high, called in compare(drawn)]
                _tell(counts, rule, cell, words, truth[1])
    return counts


def _are_alike(first: Judged | None, second: Judged | None) -> bool:
    """The same but for rounding: drawn boards are added up in single precision."""
    if first is None or second is None:
        return first is second
    differences = (abs(first.ratio - second.ratio), abs(first.p_adjusted - second.p_adjusted))
    return max(differences) < 1e-3 and first.verdict == second.verdict


def _tell(counts: Counter[str], rule: str, cell: Cell, said: Sequence[Any], truth: Sequence[float]) -> None:
    """Add what a rule said of a board, where it was false, and whether its intervals held the truth."""
    known = [(one, true) for at, (one, true) in enumerate(zip(said, truth, strict=True)) if one]
    if cell.kind == "one_seed":
        known = [pair for pair, number in zip(known, cell.seeds[1:], strict=False) if number == 1]
    wrong = [word != (true > 0) - (true < 0) for (*_, word), true in known if word]
    counts[f"{rule} false"] += any(wrong)
    counts[f"{rule} false of"] += 1
    if cell.kind in ("null", "ratio"):
        counts[f"{rule} covered"] += sum(low <= true <= high for (_, low, high, _), true in known)
        counts[f"{rule} covered of"] += len(known)
    real = [word for (*_, word), true in known if true > 0]
    if real and cell.kind.startswith("power"):
        counts[f"{rule} found"] += sum(word > 0 for word in real)
        counts[f"{rule} found of"] += len(real)


def drawn_board(cell: Cell, generator: Any) -> tuple[Drawn, dict[str, dict[int, float]] | None, list[list[float]]]:
    """A board, the early losses where seeds are picked, and each recipe's true level and score over the baseline's."""
    import numpy as np

    from bench._boards import WORLDS, draw, ratios, true_levels

    world = WORLDS[cell.world]
    recipes = len(cell.seeds)
    aligns = [0.5, *((1.0, 0.0, None)[at % 3] for at in range(recipes - 1))] if cell.gambles else None
    louder = [1.0 if at % 3 else cell.louder for at in range(recipes)]
    made = ratios(recipes, cell.ratio, cell.every)
    drawn = draw(world, cell.seeds, generator, common=cell.common, ratio=made, aligns=aligns, louder=louder)
    of = [true_levels(world, float(made[at, 0]), aligns[at] if aligns else 0.5) for at in range(recipes)]
    truth = [[_less(of[at][which], of[0][which]) for at in range(1, recipes)] for which in range(2)]
    if cell.gambles:  # between the heaps nothing differs by the logarithm, on which the present rule judges
        for which in range(2):
            truth[which][2::3] = [0.0] * len(truth[which][2::3])
    if not cell.picked:
        return drawn, None, truth
    loss = -PICKED_CORRELATION * drawn.luck
    loss += np.sqrt(1 - PICKED_CORRELATION**2) * generator.standard_normal(len(loss))
    losses: dict[str, dict[int, float]] = {}
    for (recipe, seed), value in zip(drawn.runs, loss, strict=True):
        losses.setdefault(_name(recipe), {})[seed] = float(value)
    going = [seed in _kept(losses[_name(recipe)], recipe) for recipe, seed in drawn.runs]
    runs = [run for run, goes in zip(drawn.runs, going, strict=True) if goes]
    return drawn._replace(runs=runs, scores=[scores[going] for scores in drawn.scores]), losses, truth


def _less(value: float, other: float) -> float:
    return value - other if abs(value - other) > 1e-9 else 0.0


def _kept(losses: dict[int, float], recipe: int) -> list[int]:
    return sorted(losses, key=losses.__getitem__)[: KEPT if recipe else STARTED]


def _name(recipe: int) -> str:
    return f"r{recipe:02d}"


def as_board(drawn: Drawn, losses: dict[str, dict[int, float]] | None = None) -> Board:
    """A drawn board as results are read."""
    from bettersynth.report.board import Answers, Board

    benchmarks = zip(("textvqa", "mmbench"), drawn.scores, drawn.clusters, strict=True)
    runs = [(_name(recipe), seed) for recipe, seed in drawn.runs]
    return Board(runs, {name: Answers.of(scores, cluster) for name, scores, cluster in benchmarks}, losses)


def through_files(drawn: Drawn) -> Board:
    """The same by way of result files."""
    with tempfile.TemporaryDirectory() as folder:
        return read_results(write_results(drawn, Path(folder)), Path(folder))


def write_results(drawn: Drawn, folder: Path) -> list[tuple[str, int]]:
    """Result files below a folder, as an evaluation leaves them; recipe and seed of each run."""
    from bettersynth.core.layout import Layout
    from bettersynth.core.publish import write_json

    runs = [(_name(recipe), seed) for recipe, seed in drawn.runs]
    for name, scores, cluster in zip(("textvqa", "mmbench"), drawn.scores, drawn.clusters, strict=True):
        for run, of_run in zip(runs, scores, strict=True):
            rows = [
                {"id": str(at), "group": f"{group:05d}", "score": float(score)}
                for at, (group, score) in enumerate(zip(cluster, of_run, strict=True))
            ]
            write_json(Layout(folder).result(*run, name), {"per_question": rows})
    return runs


def read_results(runs: Sequence[tuple[str, int]], folder: Path) -> Board:
    """The board of these runs' result files."""
    from bettersynth.core.layout import Layout
    from bettersynth.core.publish import read_json
    from bettersynth.report.board import Board

    layout = Layout(folder)
    return Board.read(runs, ["textvqa", "mmbench"], lambda run, name: read_json(layout.result(*run, name)))


def judge(board: Board) -> list[Judged | None]:
    """Each recipe beside the first."""
    from bettersynth.report import verdicts

    first, *others = board.recipes
    judged = verdicts.judge(board, dict.fromkeys(others, first))
    return [judged[name] for name in others]

"""The leaderboard: every recipe relative to the baseline, and whether the difference is more than noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bettersynth.configuration.types import Configuration, Recipe
from bettersynth.core.layout import Layout
from bettersynth.core.publish import json_lines, read_json, write_json
from bettersynth.report.board import UNKNOWN_SCATTER, Board, Results
from bettersynth.report.comparison import Difference

LEVEL = 0.95
LAST_PART = 5
"""The final loss is the mean over the last fifth of the logged steps, as in cards: one step alone is noise."""


def build_leaderboard(configuration: Configuration, layout: Layout) -> dict[str, Any]:
    """Compare every recipe with the baseline; write and return `report/leaderboard.json`.

    Results that are not there yet are reported as missing, not as an error. Accuracies are in 0…1; a ratio is a
    recipe's mean accuracy over the baseline's; `score` is the mean of the ratios, as the contest's was.
    Recipes are ordered by score, those without one last, as configured.
    """
    baseline, benchmarks = baseline_of(configuration), list(configuration.benchmarks)
    entries, results = {}, {}
    for name, recipe in configuration.recipes.items():
        seeds = [_seed_entry(layout, name, seed, benchmarks) for seed in recipe.seeds]
        results[name] = _finished(layout, name, seeds, benchmarks)
        entries[name] = _recipe_entry(layout, name, recipe, seeds, benchmarks)
    if baseline is not None:
        for name, entry in entries.items():
            _relate(entry, entries[baseline], results[name], benchmarks)
    _judge(entries, baseline, _board(entries, results, benchmarks))
    order = {name: position for position, name in enumerate(entries)}
    leaderboard = {
        "baseline": baseline,
        "comparisons": sum(entry["comparison"] is not None for entry in entries.values()),
        "recipes": sorted(
            entries.values(),
            key=lambda entry: (entry["score"] is None, -(entry["score"] or 0), order[entry["recipe"]]),
        ),
    }
    write_json(layout.leaderboard, leaderboard)
    return leaderboard


def baseline_of(configuration: Configuration) -> str | None:
    """The recipe that all others are relative to; None without recipes."""
    return configuration.report.baseline or next(iter(configuration.recipes), None)


def read_log(path: Path) -> list[tuple[int, float]]:
    """`(step, loss)` of a training log; empty when there is none."""
    return [(entry["step"], entry["loss"]) for entry in json_lines(path) if "loss" in entry]


def _card(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.exists() else None


def _seed_entry(layout: Layout, recipe: str, seed: int, benchmarks: list[str]) -> dict[str, Any]:
    """One run: its status, accuracies and final stage-1 loss, None where there is none (yet).

    The fate of one that was stopped is `stopped`, by its rank, or `failed`, by a loss that is no number.
    """
    entry: dict[str, Any] = {"seed": seed, "status": "done", "fate": None, **dict.fromkeys(benchmarks)}
    for benchmark in benchmarks:
        result = _card(layout.result(recipe, seed, benchmark))
        if result is None:
            entry["status"] = "missing" if entry["status"] == "done" else entry["status"]
        elif result.get("status") == "stopped":
            entry["status"] = "stopped"
        else:
            entry[benchmark] = result["accuracy"]
    pretrain = _card(layout.pretrain(recipe, seed) / "card.json")
    if pretrain is not None and pretrain["status"] == "stopped":
        entry["status"] = "stopped"
    if entry["status"] == "stopped":
        entry["fate"] = (pretrain or {}).get("fate", "stopped")
    entry["pretrain_loss"] = None if entry["status"] == "stopped" else _final_loss(layout.pretrain(recipe, seed))
    return entry


def _final_loss(stage: Path) -> float | None:
    losses = [loss for _, loss in read_log(stage / "log.jsonl")]
    last = losses[-max(1, len(losses) // LAST_PART) :]
    return sum(last) / len(last) if last else None


def _finished(layout: Layout, recipe: str, seeds: list[dict[str, Any]], benchmarks: list[str]) -> Results:
    return {
        entry["seed"]: {
            benchmark: read_json(layout.result(recipe, entry["seed"], benchmark)) for benchmark in benchmarks
        }
        for entry in seeds
        if entry["status"] == "done"
    }


def _recipe_entry(
    layout: Layout, name: str, recipe: Recipe, seeds: list[dict[str, Any]], benchmarks: list[str]
) -> dict[str, Any]:
    dataset, trainset = _card(layout.dataset_card(recipe.dataset)), _card(layout.trainset_card(name))
    rows = dataset["rows"] if dataset else None
    return {
        "recipe": name,
        "dataset": recipe.dataset,
        "note": recipe.note,
        "rows": rows,
        "rows_as_published": None if rows is None else _as_published(rows, recipe),
        "rows_after_cap": trainset and trainset["rows"],
        "seeds": seeds,
        "status": _status([entry["status"] for entry in seeds]),
        "published": recipe.published and recipe.published.model_dump(),
        "pretrain_loss": _summary([entry["pretrain_loss"] for entry in seeds if entry["status"] == "done"]),
        **{
            benchmark: _summary([entry[benchmark] for entry in seeds if entry["status"] == "done"])
            for benchmark in benchmarks
        },
    }


def _as_published(rows: int, recipe: Recipe) -> bool | None:
    """Whether the rows are those that were published, within the tolerance; None where none were."""
    if recipe.published is None or recipe.published.rows is None:
        return None
    return abs(rows - recipe.published.rows) <= recipe.published.tolerance * recipe.published.rows


def _status(statuses: list[str]) -> str:
    if "missing" in statuses:
        return "partial" if "done" in statuses else "missing"
    return "done" if "done" in statuses else "stopped"


def _summary(values: list[float | None]) -> dict[str, Any] | None:
    """Mean, standard deviation and 95 % interval over seeds."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    deviation = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return {"n": len(known), "mean": float(np.mean(known)), "sd": deviation, "interval": interval(known)}


def _relate(entry: dict[str, Any], base: dict[str, Any], results: Results, benchmarks: list[str]) -> None:
    """Add ratios and score to the baseline; a benchmark without a point for the baseline has no ratio."""
    complete = entry["status"] in ("done", "partial") and base["status"] in ("done", "partial")
    means = {benchmark: base[benchmark]["mean"] for benchmark in benchmarks if complete and base[benchmark]["mean"] > 0}
    entry["ratio"] = {benchmark: entry[benchmark]["mean"] / mean for benchmark, mean in means.items()}
    entry["score"] = sum(entry["ratio"].values()) / len(means) if means else None
    entry["seed_scores"] = {
        seed: sum(run[benchmark]["accuracy"] / mean for benchmark, mean in means.items()) / len(means)
        for seed, run in (results.items() if entry["score"] is not None else ())
    }
    entry["score_interval"] = interval(list(entry["seed_scores"].values()))


def board_of(configuration: Configuration, layout: Layout) -> Board:
    """The runs that can be compared, as they are on disk."""
    benchmarks = list(configuration.benchmarks)
    seeds = {
        name: [_seed_entry(layout, name, seed, benchmarks) for seed in recipe.seeds]
        for name, recipe in configuration.recipes.items()
    }
    entries = {name: {"seeds": found} for name, found in seeds.items()}
    return _board(entries, {name: _finished(layout, name, seeds[name], benchmarks) for name in seeds}, benchmarks)


def _board(entries: dict[str, dict[str, Any]], results: dict[str, Results], benchmarks: list[str]) -> Board:
    return Board({name: results[name] for name, entry in entries.items() if not _is_picked(entry)}, benchmarks)


def _is_picked(entry: dict[str, Any]) -> bool:
    """Whether some of its seeds were stopped for their rank by an early loss, so that the others are a choice."""
    return any(run["fate"] == "stopped" for run in entry["seeds"])


def _judge(entries: dict[str, dict[str, Any]], baseline: str | None, board: Board) -> None:
    """Add the comparison with the baseline, its verdict, and the basis of that in words."""
    names = [name for name in board.recipes if name != baseline]
    judged = board.judge(baseline, names) if baseline in board.recipes else {}
    for name, entry in entries.items():
        found = judged.get(name)
        entry["comparison"] = found and {
            key: value for key, value in found._asdict().items() if key not in ("verdict", "basis")
        }
        entry["differences"] = found and {
            benchmark: _plain(board.difference(name, str(baseline), benchmark)) for benchmark in board.benchmarks
        }
        if name == baseline:
            entry["verdict"], entry["basis"] = "baseline", "all others are relative to it"
        elif entry["score"] is None:
            entry["verdict"], entry["basis"] = "no result", _why_no_score(entry)
        elif _is_picked(entry):
            done = sum(run["status"] == "done" for run in entry["seeds"])
            policy = f"the best {done} of {len(entry['seeds'])} seeds by their early loss: what such a choice gives"
            entry["verdict"], entry["basis"] = "picked", f"{policy}, not what the recipe gives, so it is not compared"
        elif found is None:
            why = UNKNOWN_SCATTER if baseline in board.recipes else "the baseline's seeds were picked by their loss"
            entry["verdict"], entry["basis"] = "not tested", why
        else:
            entry["verdict"], entry["basis"] = found.verdict, found.basis + _left_out(entry, board.benchmarks)


def _plain(difference: Difference | None) -> dict[str, float] | None:
    return difference and difference._asdict()


def _why_no_score(entry: dict[str, Any]) -> str:
    if entry["status"] == "stopped":
        return "every seed was stopped after the probe"
    return "not run yet" if entry["status"] == "missing" else "no ratio: the baseline has no result, or no point"


def _left_out(entry: dict[str, Any], benchmarks: list[str]) -> str:
    """Words on the benchmarks that have no ratio because the baseline has no point there."""
    missing = [benchmark for benchmark in benchmarks if benchmark not in entry["ratio"]]
    return f"; the score is without {' and '.join(missing)}, where the baseline has no point" if missing else ""


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean over seeds; None for fewer than two values."""
    if len(values) < 2:
        return None
    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)

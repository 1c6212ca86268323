"""The leaderboard: every recipe relative to the baseline, and whether the difference is more than luck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from bettersynth.configuration.types import Configuration, Recipe
from bettersynth.core.layout import Layout
from bettersynth.core.publish import publish, write_sealed
from bettersynth.report.board import Board
from bettersynth.report.comparison import Difference
from bettersynth.report.heaps import heaps
from bettersynth.report.leaderboard_table import as_csv, as_markdown
from bettersynth.report.runs import (
    Choice,
    Compared,
    card_at,
    compared_runs,
    is_of_other_pairs,
    recipes_on_disk,
    seed_entry,
    seeds_on_disk,
)
from bettersynth.report.verdicts import (
    UNKNOWN_SCATTER,
    Judged,
    groups,
    highest_without_luck,
    judge,
    matrix,
)

LEVEL = 0.95
Entry = dict[str, Any]


def build_leaderboard(configuration: Configuration, layout: Layout) -> dict[str, Any]:
    """Write and return `report/leaderboard.json`; beside it CSV and Markdown."""
    leaderboard = write_sealed(layout.leaderboard, leaderboard_of(configuration, layout))
    for path, write in ((layout.leaderboard_csv, as_csv), (layout.leaderboard_markdown, as_markdown)):
        with publish(path) as temporary:
            temporary.write_text(write(leaderboard, list(configuration.benchmarks)), encoding="utf-8")
    return leaderboard


def leaderboard_of(configuration: Configuration, layout: Layout) -> dict[str, Any]:
    """Every recipe compared with the baseline.

    Results that are not there yet are reported as missing, not as an error. Accuracies are in 0…1; a ratio is a
    recipe's mean accuracy over the baseline's; `score` is the mean of the ratios, as the contest's was.
    Recipes are ordered by score, those without one last, as configured.
    """
    baseline, benchmarks = baseline_of(configuration), list(configuration.benchmarks)
    entries = {name: _recipe_entry(configuration, layout, name, benchmarks) for name in configuration.recipes}
    if baseline is not None:
        for entry in entries.values():
            _relate(entry, entries[baseline], benchmarks)
    compared = compared_runs(configuration, layout, _finished(entries, "seeds"), benchmarks)
    _judge(entries, baseline, compared)
    _judge_by_controls(entries, configuration, compared.board)
    _judge_with_removed(entries, baseline, configuration, layout)
    order = {name: position for position, name in enumerate(entries)}
    return {
        "baseline": baseline,
        "comparisons": sum(entry["comparison"] is not None for entry in entries.values()),
        "recipes": sorted(
            entries.values(),
            key=lambda entry: (entry["score"] is None, -(entry["score"] or 0), order[entry["recipe"]]),
        ),
        "removed_recipes": [
            {"recipe": name, "seeds": seeds_on_disk(layout, name)}
            for name in recipes_on_disk(layout)
            if name not in configuration.recipes
        ],
        **_leading(compared.board, baseline),
        "heaps": heaps(compared.board),
    }


def baseline_of(configuration: Configuration) -> str | None:
    """The recipe that all others are relative to; None without recipes."""
    return configuration.report.baseline or next(iter(configuration.recipes), None)


# --- one recipe ----------------------------------------------------------------------------------


def _recipe_entry(configuration: Configuration, layout: Layout, name: str, benchmarks: list[str]) -> Entry:
    recipe = configuration.recipes[name]
    seeds = [seed_entry(layout, name, seed, benchmarks) for seed in recipe.seeds]
    removed = [seed for seed in seeds_on_disk(layout, name) if seed not in recipe.seeds]
    done = [entry for entry in seeds if entry["status"] == "done"]
    dataset, trainset = card_at(layout.dataset_card(recipe.dataset)), card_at(layout.trainset_card(name))
    rows = dataset["rows"] if dataset else None
    return {
        "recipe": name,
        "dataset": recipe.dataset,
        "note": recipe.note,
        "rows": rows,
        "rows_as_published": None if rows is None else _as_published(rows, recipe),
        "rows_after_cap": trainset and trainset["rows"],
        "trainset_sha256": trainset and trainset["sha256"],
        "steps": next((entry["steps"] for entry in done), None),
        "seeds": seeds,
        "removed": [_removed_entry(layout, name, seed, benchmarks) for seed in removed],
        "status": _status([entry["status"] for entry in seeds]),
        "published": recipe.published and recipe.published.model_dump(),
        "pretrain_loss": _summary([entry["pretrain_loss"] for entry in done]),
        **_spent(seeds, configuration.report.price_per_gpu_hour),
        **{benchmark: _summary([entry[benchmark] for entry in done]) for benchmark in benchmarks},
    }


def _removed_entry(layout: Layout, recipe: str, seed: int, benchmarks: list[str]) -> Entry:
    entry = seed_entry(layout, recipe, seed, benchmarks)
    return entry | {"other_pairs": is_of_other_pairs(layout, recipe, seed)}


def _spent(seeds: list[Entry], price: float | None) -> dict[str, float | None]:
    """GPU-hours of all runs of a recipe, stopped ones too, and their price; None where no GPU was used."""
    hours = sum(entry["gpu_hours"] for entry in seeds)
    return {"gpu_hours": hours or None, "price": hours * price if hours and price is not None else None}


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


def _relate(entry: Entry, base: Entry, benchmarks: list[str]) -> None:
    """Add ratios and score to the baseline; a benchmark without a point for the baseline has no ratio."""
    complete = entry["status"] in ("done", "partial") and base["status"] in ("done", "partial")
    means = {benchmark: base[benchmark]["mean"] for benchmark in benchmarks if complete and base[benchmark]["mean"] > 0}
    entry["ratio"] = {benchmark: entry[benchmark]["mean"] / mean for benchmark, mean in means.items()}
    entry["score"] = sum(entry["ratio"].values()) / len(means) if means else None
    entry["seed_scores"] = {
        seed["seed"]: sum(seed[benchmark] / mean for benchmark, mean in means.items()) / len(means)
        for seed in entry["seeds"]
        if seed["status"] == "done" and entry["score"] is not None
    }
    entry["score_interval"] = interval(list(entry["seed_scores"].values()))


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean over seeds; None for fewer than two values."""
    if len(values) < 2:
        return None
    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


# --- comparisons ---------------------------------------------------------------------------------


def _finished(entries: Mapping[str, Entry], *kinds: str) -> list[tuple[str, int]]:
    """Finished runs, of the configuration (`seeds`) or removed from it; of the latter those of the present pairs."""
    return [
        (name, run["seed"])
        for name, entry in entries.items()
        for kind in kinds
        for run in entry[kind]
        if run["status"] == "done" and not run.get("other_pairs")
    ]


def _beside_baseline(board: Board, baseline: str | None) -> dict[str, Judged | None]:
    if baseline is None or baseline not in board.recipes:
        return {}
    return judge(board, {name: baseline for name in board.recipes if name != baseline})


def _judge(entries: dict[str, Entry], baseline: str | None, compared: Compared) -> None:
    """Add the comparison with the baseline, its verdict, and the basis of that in words."""
    board, judged = compared.board, _beside_baseline(compared.board, baseline)
    for name, entry in entries.items():
        found, choice = judged.get(name), compared.choices.get(name)
        entry["estimates"] = _estimates(choice, name in board.recipes)
        entry["comparison"] = _figures(found)
        entry["differences"] = found and {
            benchmark: _plain(board.difference(name, str(baseline), benchmark)) for benchmark in board.benchmarks
        }
        if name == baseline:
            entry["verdict"], entry["basis"] = "baseline", "all others are relative to it"
        elif entry["score"] is None:
            entry["verdict"], entry["basis"] = "no result", _why_no_score(entry)
        elif choice and name not in board.recipes:
            entry["verdict"], entry["basis"] = "picked", _policy(choice)
        elif found is None:
            why = UNKNOWN_SCATTER if baseline in board.recipes else "the baseline's seeds were picked by their loss"
            entry["verdict"], entry["basis"] = "not tested", why
        else:
            entry["verdict"] = found.verdict
            entry["basis"] = found.basis + _corrected(choice) + _left_out(entry, board.benchmarks)


def _figures(judged: Judged | None) -> dict[str, float] | None:
    return judged and {key: value for key, value in judged._asdict().items() if key not in ("verdict", "basis")}


def _estimates(choice: Choice | None, is_corrected: bool) -> str:
    """What a row is of: a recipe, or what picking gives."""
    if choice is None:
        return "recipe"
    policy = f"best {choice.kept} of {choice.of}"
    return f"recipe, corrected for picking the {policy}" if is_corrected else f"policy: {policy}"


def _policy(choice: Choice) -> str:
    picked = f"the best {choice.kept} of {choice.of} seeds by their early loss: what such a choice gives"
    return f"{picked}, not what the recipe gives, so it is not compared"


def _corrected(choice: Choice | None) -> str:
    if choice is None:
        return ""
    return f", corrected for going on with the best {choice.kept} of {choice.of} seeds by their early loss"


def _plain(difference: Difference | None) -> dict[str, float] | None:
    return difference and difference._asdict()


def _why_no_score(entry: Entry) -> str:
    if entry["status"] == "stopped":
        return "every seed was stopped after the probe"
    return "not run yet" if entry["status"] == "missing" else "no ratio: the baseline has no result, or no point"


def _left_out(entry: Entry, benchmarks: list[str]) -> str:
    """Words on the benchmarks that have no ratio because the baseline has no point there."""
    missing = [benchmark for benchmark in benchmarks if benchmark not in entry["ratio"]]
    return f"; the score is without {' and '.join(missing)}, where the baseline has no point" if missing else ""


def _judge_by_controls(entries: dict[str, Entry], configuration: Configuration, board: Board) -> None:
    """Add how each recipe does beside its control, p-values adjusted for all recipes that have one."""
    controls = {
        name: control
        for control, recipe in configuration.recipes.items()
        for name in recipe.control_of
        if {name, control} <= set(board.recipes)
    }
    judged = judge(board, controls)
    for name, entry in entries.items():
        found = judged.get(name)
        entry["against_control"] = found and {"control": controls[name], **found._asdict()}


def _judge_with_removed(
    entries: dict[str, Entry], baseline: str | None, configuration: Configuration, layout: Layout
) -> None:
    """Add what the verdicts would be with the seeds that were removed from the configuration."""
    everything = _finished(entries, "seeds", "removed")
    is_more = len(everything) > len(_finished(entries, "seeds"))
    board = compared_runs(configuration, layout, everything, list(configuration.benchmarks)).board if is_more else None
    judged = _beside_baseline(board, baseline) if board else {}
    for name, entry in entries.items():
        found = judged.get(name)
        entry["with_removed"] = found and {**found._asdict(), "seeds": board.seeds(name) if board else 0}


def _leading(board: Board, baseline: str | None) -> dict[str, Any]:
    """Which recipes lead, every pair, and the highest ratio without what being picked as the highest adds."""
    pairs = matrix(board) if board.runs else {}
    said = {
        name: {other: pair._asdict() for (of, other), pair in pairs.items() if of == name} for name in board.recipes
    }
    is_known = bool(pairs) and baseline in board.recipes
    return {
        "groups": groups(board),
        "highest_without_luck": highest_without_luck(board, str(baseline)) if is_known else None,
        "pairs": said if pairs else {},
    }

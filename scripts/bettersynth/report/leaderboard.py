"""The leaderboard: every recipe relative to the baseline, and whether the difference is more than noise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bettersynth.configuration.types import Configuration, Recipe
from bettersynth.core.commands import make
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, write_json
from bettersynth.report.statistics import Difference, holm, interval, paired_difference

SIGNIFICANCE = 0.05
LAST_PART = 5
"""The final loss is the mean over the last fifth of the logged steps, as in cards: one step alone is noise."""

Results = dict[int, dict[str, dict[str, Any]]]
"""One recipe's finished results: by seed, by benchmark."""


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
            _relate(entry, entries[baseline], results[name], results[baseline], benchmarks)
    _judge(entries, baseline, benchmarks)
    order = {name: position for position, name in enumerate(entries)}
    leaderboard = {
        "baseline": baseline,
        "comparisons": sum(entry["difference"] is not None for entry in entries.values()),
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
    return list(_log_lines(path)) if path.exists() else []


def _log_lines(path: Path) -> Iterator[tuple[int, float]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            entry = json.loads(line)
            if "loss" in entry:
                yield entry["step"], entry["loss"]


def _card(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.exists() else None


def _seed_entry(layout: Layout, recipe: str, seed: int, benchmarks: list[str]) -> dict[str, Any]:
    """One run: its status, accuracies and final stage-1 loss, None where there is none (yet)."""
    entry: dict[str, Any] = {"seed": seed, "status": "done", **dict.fromkeys(benchmarks)}
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


def _relate(
    entry: dict[str, Any], base: dict[str, Any], results: Results, base_results: Results, benchmarks: list[str]
) -> None:
    """Add ratios, score and difference to the baseline; a benchmark without a point for the baseline has no ratio."""
    complete = entry["status"] in ("done", "partial") and base["status"] in ("done", "partial")
    means = {benchmark: base[benchmark]["mean"] for benchmark in benchmarks if complete and base[benchmark]["mean"] > 0}
    entry["ratio"] = {benchmark: entry[benchmark]["mean"] / mean for benchmark, mean in means.items()}
    entry["score"] = sum(entry["ratio"].values()) / len(means) if means else None
    entry["seed_scores"] = {
        seed: sum(run[benchmark]["accuracy"] / mean for benchmark, mean in means.items()) / len(means)
        for seed, run in (results.items() if entry["score"] is not None else ())
    }
    entry["score_interval"] = interval(list(entry["seed_scores"].values()))
    common = sorted(results.keys() & base_results.keys())
    entry["paired_seeds"] = common if entry is not base else []
    entry["difference"] = entry["differences"] = None
    if entry is base or entry["score"] is None or len(common) < 2:
        return
    matrices = {benchmark: _differences(results, base_results, common, benchmark) for benchmark in benchmarks}
    weighted = [(matrices[benchmark], 1 / (mean * len(means))) for benchmark, mean in means.items()]
    entry["difference"] = _plain(paired_difference(weighted))
    entry["differences"] = {b: _plain(paired_difference([(matrices[b], 1.0)])) for b in benchmarks}


def _differences(results: Results, base: Results, seeds: list[int], benchmark: str) -> np.ndarray:
    """Score less the baseline's: one row for each seed, one column for each question."""
    runs = [results[seed][benchmark]["per_question"] for seed in seeds]
    base_runs = [base[seed][benchmark]["per_question"] for seed in seeds]
    questions = [row["id"] for row in runs[0]]
    if any([row["id"] for row in run] != questions for run in runs + base_runs):
        raise ValueError(
            f"the {benchmark} results of seeds {seeds} answer different questions and cannot be compared; "
            f"score them again: {make('run', AGAIN='score_answers')}"
        )
    return np.array([[row["score"] for row in run] for run in runs]) - np.array(
        [[row["score"] for row in run] for run in base_runs]
    )


def _plain(difference: Difference | None) -> dict[str, float] | None:
    return difference and difference._asdict()


def _judge(entries: dict[str, dict[str, Any]], baseline: str | None, benchmarks: list[str]) -> None:
    """Add the verdict, its basis in words, and p-values adjusted for the number of comparisons."""
    compared = [entry for entry in entries.values() if entry["difference"] is not None]
    adjusted = holm([entry["difference"]["p"] for entry in compared])
    for entry, p in zip(compared, adjusted, strict=True):
        entry["difference"]["p_holm"] = p
    for entry in entries.values():
        entry["verdict"], entry["basis"] = _verdict(entry, baseline, len(compared), benchmarks)


def _why_no_score(entry: dict[str, Any]) -> str:
    if entry["status"] == "stopped":
        return "every seed was stopped after the probe"
    return "not run yet" if entry["status"] == "missing" else "no ratio: the baseline has no result, or no point"


def _left_out(entry: dict[str, Any], benchmarks: list[str]) -> str:
    """Words on the benchmarks that cannot count because the baseline has no point there."""
    missing = [benchmark for benchmark in benchmarks if benchmark not in entry["ratio"]]
    return f", without {' and '.join(missing)}, where the baseline has no point" if missing else ""


def _verdict(entry: dict[str, Any], baseline: str | None, comparisons: int, benchmarks: list[str]) -> tuple[str, str]:
    """One of five words, and what it rests on."""
    seeds = len(entry["paired_seeds"])
    with_seeds = f"with {seeds} paired seed{'' if seeds == 1 else 's'}"
    if entry["recipe"] == baseline:
        return "baseline", "all others are relative to it"
    if entry["score"] is None:
        return "no result", _why_no_score(entry)
    with_seeds += _left_out(entry, benchmarks)
    if entry["difference"] is None:
        unknown = "the spread between seeds is unknown" if seeds else "no seed is shared with it"
        return "not distinguishable", f"{with_seeds}: {unknown}"
    difference = entry["difference"]
    if difference["p"] > SIGNIFICANCE:
        return "not distinguishable", with_seeds
    verdict = "better" if difference["mean"] > 0 else "worse"
    if difference["p_holm"] > SIGNIFICANCE:
        return verdict, f"{with_seeds}, but not after correcting for {comparisons} comparisons"
    return verdict, with_seeds

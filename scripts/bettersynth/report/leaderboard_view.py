"""What the page shows of the leaderboard: a row for each recipe, which lead, and every recipe beside every other."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.report import charts
from bettersynth.report.leaderboard_table import as_csv, as_markdown, fates
from bettersynth.report.runs import card_at

VERDICTS = ("better", "worse", "leaning", "equal", "not distinguishable", "picked", "not tested")
TONES = {"better": "good", "worse": "bad", "baseline": "base"}


def leaderboard_view(leaderboard: dict[str, Any] | None, benchmarks: list[str]) -> dict[str, Any] | None:
    """The leaderboard with a strip for each recipe on one shared scale."""
    if leaderboard is None or not leaderboard["recipes"]:
        return None
    stated = [_published_score(entry, benchmarks) for entry in leaderboard["recipes"]]
    scale = _score_scale(leaderboard["recipes"], stated)
    rows = []
    for entry, published in zip(leaderboard["recipes"], stated, strict=True):
        tone = TONES.get(entry["verdict"], "plain")
        title = f"{entry['recipe']}: {sentence(entry, leaderboard['baseline'])}"
        chart = charts.strip(
            title,
            scale,
            entry["score"],
            entry["score_interval"],
            sorted(entry["seed_scores"].values()),
            published,
            tone,
        )
        rows.append(entry | {"chart": chart, "tone": tone, "published_score": published, "counts": fates(entry)})
    return leaderboard | {
        "recipes": rows,
        "axis": charts.axis(scale),
        "summary": _summary(leaderboard),
        "matrix": _matrix(leaderboard),
        "files": {
            "leaderboard.csv": _embedded(as_csv(leaderboard, benchmarks), "text/csv"),
            "leaderboard.md": _embedded(as_markdown(leaderboard, benchmarks), "text/markdown"),
        },
        "changed_by_removed": [row for row in rows if row["with_removed"] and _is_otherwise(row)],
    }


def _embedded(text: str, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(text.encode()).decode()}"


def _is_otherwise(row: dict[str, Any]) -> bool:
    """Whether a verdict would be another with the removed seeds."""
    return bool(row["with_removed"]["verdict"] != row["verdict"])


def _matrix(leaderboard: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each recipe that is compared, groups in order, with a cell for each other; None on the diagonal."""
    names = [name for group in leaderboard["groups"] for name in group]
    pairs = leaderboard["pairs"]
    return [
        {
            "recipe": name,
            "group": number,
            "cells": [
                None
                if other == name
                else pairs[name][other] | {"tone": TONES.get(pairs[name][other]["verdict"], "plain")}
                for other in names
            ],
        }
        for number, group in enumerate(leaderboard["groups"], 1)
        for name in group
    ]


def _published_score(entry: dict[str, Any], benchmarks: list[str]) -> float | None:
    published = entry["published"] or {}
    figures = [published.get(benchmark) for benchmark in benchmarks]
    known = [figure for figure in figures if figure is not None]
    return sum(known) / len(known) if len(known) == len(benchmarks) else None


def _score_scale(entries: list[dict[str, Any]], published: list[float | None]) -> tuple[float, float]:
    """From the lowest to the highest seed or published figure, 1 inside; intervals may be cut."""
    values = [1.0, *(score for entry in entries for score in entry["seed_scores"].values())]
    values += [score for score in published if score is not None]
    low, high = min(values), max(values)
    margin = 0.12 * (high - low) or 0.1
    return low - margin, high + margin


def _summary(leaderboard: dict[str, Any]) -> str:
    """The result in one sentence, no stronger than the evidence."""
    baseline = leaderboard["baseline"]
    compared = [entry for entry in leaderboard["recipes"] if entry["recipe"] != baseline and entry["score"] is not None]
    if not compared:
        return f"No recipe has a result to compare with {baseline} yet."
    verdicts = [entry["verdict"] for entry in compared]
    parts = [f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS if verdict in verdicts]
    counts = (
        f"Of {len(compared)} recipe{'s' if len(compared) > 1 else ''} compared with {baseline}: {', '.join(parts)}."
    )
    return " ".join([counts, *_leaders(leaderboard)])


def _leaders(leaderboard: dict[str, Any]) -> Iterator[str]:
    """Which recipes lead, as one group, and by how much once luck is taken off the highest."""
    if not leaderboard["groups"]:
        return
    first, *_ = leaderboard["groups"]
    if len(first) == sum(map(len, leaderboard["groups"])) > 1:
        yield "No recipe can be told from the best of them."
        return
    others = f", from which {_listed(first[1:])} cannot be told" if len(first) > 1 else ""
    yield f"The highest is {first[0]}{others}."
    if (highest := leaderboard["highest_without_luck"]) is not None and first[0] != leaderboard["baseline"]:
        luck = "without what being picked as the highest adds on average"
        yield f"Its level is ×{highest:.2f} of {leaderboard['baseline']}’s, {luck}."


def _listed(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def sentence(entry: dict[str, Any], baseline: str) -> str:
    """A verdict in words: `better than baseline with 3 seeds`."""
    link = {"better": " than", "worse": " than", "equal": " to", "not distinguishable": " from"}
    link = {word: f"{preposition} {baseline}" for word, preposition in link.items()} | {"leaning": ""}
    verdict = entry["verdict"]
    return f"{verdict}{link[verdict]} {entry['basis']}" if verdict in link else f"{verdict}: {entry['basis']}"


def further_marks(configuration: Configuration, layout: Layout) -> Iterator[dict[str, Any]]:
    """Further marks of each benchmark that has some, whole and by parts: means over each recipe's finished seeds."""
    for name, benchmark in configuration.benchmarks.items():
        if not benchmark.marks:
            continue
        rows: list[dict[str, Any]] = []
        questions: dict[str, int] = {}
        for recipe, definition in configuration.recipes.items():
            results = [card_at(layout.result(recipe, seed, name)) for seed in definition.seeds]
            finished = [result for result in results if result and result["status"] != "stopped"]
            if finished:
                parts = [benchmark.parts(result) for result in finished]
                questions |= {part: facts["questions"] for each in parts for part, facts in each.items()}
                first, *_ = benchmark.marks
                figures = [_mean([result[mark] for result in finished]) for mark in benchmark.marks]
                by_part = {part: _mean([each[part][first] for each in parts]) for part in parts[0]}
                rows.append({"recipe": recipe, "figures": figures, "parts": by_part})
        if rows:
            yield {"benchmark": benchmark, "questions": questions, "rows": rows}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)

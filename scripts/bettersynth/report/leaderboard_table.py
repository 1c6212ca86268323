"""The leaderboard as a table for others' tools: CSV with every figure in a column, Markdown to paste somewhere."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

FATES = ("done", "stopped", "failed", "missing", "removed")


def fates(entry: dict[str, Any]) -> dict[str, int]:
    """Seeds of a recipe by what became of them."""
    of_each = [seed["fate"] or seed["status"] for seed in entry["seeds"]] + ["removed"] * len(entry["removed"])
    return {fate: of_each.count(fate) for fate in FATES}


def rows(leaderboard: dict[str, Any], benchmarks: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A flat row for each recipe, best first; None where there is nothing."""
    group_of = {name: number for number, group in enumerate(leaderboard["groups"], 1) for name in group}
    for entry in leaderboard["recipes"]:
        row = {"recipe": entry["recipe"], "group": group_of.get(entry["recipe"]), "score": entry["score"]}
        row |= dict(zip(("score_low", "score_high"), entry["score_interval"] or (None, None), strict=True))
        for name in benchmarks:
            summary = entry[name] or {}
            low, high = summary.get("interval") or (None, None)
            row |= {name: summary.get("mean"), f"{name}_sd": summary.get("sd"), f"{name}_low": low}
            row |= {f"{name}_high": high, f"{name}_ratio": entry["ratio"].get(name)}
        row |= {"estimates": entry["estimates"], "verdict": entry["verdict"], "basis": entry["basis"]}
        row |= _comparison("", entry["comparison"])
        control = entry["against_control"] or {}
        row |= {"control": control.get("control"), "control_verdict": control.get("verdict")}
        row |= _comparison("control_", control)
        row |= {"dataset": entry["dataset"], "rows": entry["rows"], "rows_after_cap": entry["rows_after_cap"]}
        row |= {"steps": entry["steps"], **{f"seeds_{fate}": number for fate, number in fates(entry).items()}}
        row |= {key: entry[key] for key in ("gpu_hours", "price", "trainset_sha256")}
        sums = [f"{seed['seed']}:{seed['checkpoint_sha256']}" for seed in entry["seeds"] if seed["checkpoint_sha256"]]
        yield row | {"checkpoint_sha256": " ".join(sums) or None}


def _comparison(prefix: str, comparison: dict[str, Any] | None) -> dict[str, Any]:
    return {f"{prefix}{key}": (comparison or {}).get(key) for key in ("ratio", "low", "high", "p", "p_adjusted")}


def as_csv(leaderboard: dict[str, Any], benchmarks: Sequence[str]) -> str:
    """A line for each recipe, with a heading; an empty field where there is nothing."""
    made = list(rows(leaderboard, benchmarks))
    out = io.StringIO()
    writer = csv.DictWriter(out, list(made[0]) if made else ["recipe"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(made)
    return out.getvalue()


def as_markdown(leaderboard: dict[str, Any], benchmarks: Sequence[str]) -> str:
    """A table of what a reader looks at first, and a line on what the words mean."""
    heads = [
        "recipe",
        "group",
        "score",
        *benchmarks,
        f"over {leaderboard['baseline']}",
        "verdict",
        "against its control",
    ]
    heads += ["rows", "steps", "seeds", "GPU h"]
    lines = [heads, ["---"] * len(heads)]
    for row in rows(leaderboard, benchmarks):
        seeds = ", ".join(f"{row[f'seeds_{fate}']} {fate}" for fate in FATES if row[f"seeds_{fate}"])
        control = f"{row['control_verdict']} ({_ratio(row, 'control_')})" if row["control"] else ""
        lines.append(
            [
                f"`{row['recipe']}`",
                _or_empty(row["group"]),
                _or_empty(row["score"], ".3f"),
                *(_or_empty(row[name], ".4f") for name in benchmarks),
                _ratio(row, ""),
                row["verdict"],
                control,
                _or_empty(row["rows"], ","),
                _or_empty(row["steps"], ","),
                seeds,
                _or_empty(row["gpu_hours"], ".1f"),
            ]
        )
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return (
        f"{table}\n\nRatios of levels, the mean of the benchmarks' log accuracies, with 95 % intervals. Better and "
        "worse survive the correction for all comparisons; recipes of one group cannot be told from its best.\n"
    )


def _ratio(row: dict[str, Any], prefix: str) -> str:
    if row[f"{prefix}ratio"] is None:
        return ""
    return f"×{row[f'{prefix}ratio']:.2f} ({row[f'{prefix}low']:.2f} to {row[f'{prefix}high']:.2f})"


def _or_empty(value: float | None, form: str = "") -> str:
    return "" if value is None else format(value, form)

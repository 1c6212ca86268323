"""The published experiments of the contest, and the tables of `docs/contest.md` that set recipes beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bettersynth.configuration.reading import read_yaml
from bettersynth.configuration.types import Configuration

Ledger = dict[str, Any]


def read_ledger(path: str | Path) -> Ledger:
    """`resources/contest/ledger.yaml`: rows, analyses, operators and contradictions, as published."""
    return read_yaml(path)


def recipes_of(configuration: Configuration, row: str) -> list[str]:
    """Recipes and analyses that state to be this row of the ledger."""
    recipes = [
        name for name, recipe in configuration.recipes.items() if recipe.published and recipe.published.row == row
    ]
    return recipes + [name for name, analysis in configuration.analyses.items() if analysis.row == row]


def with_tables(page: str, configuration: Configuration, ledger: Ledger) -> str:
    """The page with what stands between `<!-- table NAME -->` and `<!-- end -->` written anew."""
    tables = {
        "models": _models(configuration),
        "rows": _rows(configuration, ledger),
        "contradictions": _contradictions(ledger),
        "variants": _without_row(configuration),
    }

    def written(found: re.Match[str]) -> str:
        return f"<!-- table {found[1]} -->\n" + "\n".join(tables[found[1]]) + "\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", written, page, flags=re.DOTALL)


def _models(configuration: Configuration) -> Iterator[str]:
    yield "| folder | repository on the hub | revision |\n| --- | --- | --- |"
    for model in configuration.models.values():
        if model.hub:
            yield f"| `{model.path}` | {model.hub} | {f'`{model.revision}`' if model.revision else ''} |"


def _rows(configuration: Configuration, ledger: Ledger) -> Iterator[str]:
    yield "| row | published: stages | rows | MMBench | TextVQA | recipes |\n| --- | --- | --- | --- | --- | --- |"
    for name, row in ledger["rows"].items():
        rows = f"{row['rows']:,}" if "rows" in row else ""
        ratios = " | ".join(f"{row[key]:.4f}" if key in row else "" for key in ("mmbench", "textvqa"))
        yield f"| {name} | {row['stages']} | {rows} | {ratios} | {_code(recipes_of(configuration, name))} |"
    for name, scores in ledger["analyses"].items():
        what = f"quartiles of {', '.join(scores)}"
        yield f"| {name} | {what} | | | | {_code(recipes_of(configuration, name))} |"


def _contradictions(ledger: Ledger) -> Iterator[str]:
    yield "| | what the write-up leaves open | reading | so | otherwise |\n| --- | --- | --- | --- | --- |"
    for number, entry in enumerate(ledger["contradictions"], 1):
        default = entry.get("default", []) + entry.get("default_analyses", [])
        others = entry.get("others", []) + entry.get("other_analyses", [])
        yield f"| {number} | {entry['question']} | {entry['reading']} | {_code(default)} | {_code(others)} |"


def _without_row(configuration: Configuration) -> Iterator[str]:
    yield "| recipe | what it is |\n| --- | --- |"
    for name, recipe in configuration.recipes.items():
        if not (recipe.published and recipe.published.row):
            yield f"| `{name}` | {recipe.note} |"


def _code(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)

"""What a board was made by, and what changed since the one before: configuration, commit, rows, scores, verdicts."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import json_lines, publish, read_json

CHANGES = {
    "configuration, ": "configuration",
    "rows of ": "rows",
    "score of ": "scores",
    "verdict on ": "verdicts",
}
"""What is compared with the board before, and how it is called."""
CODE = Path(__file__).resolve().parents[3]


def remember(configuration: Configuration, layout: Layout) -> dict[str, Any]:
    """Keep the present board in `report/history.jsonl`, unless the last line is the same; what a page says of it.

    Each line holds the configuration with every default, the commit of the code, rows of datasets, recipes' scores and
    verdicts.
    The configuration alone is also beside it, as `configuration.yaml`.
    """
    board = {
        "commit": commit(),
        "configuration": configuration.model_dump(mode="json", by_alias=True, exclude_none=True),
        "rows": _rows(configuration, layout),
        "scores": _scores(layout),
        "verdicts": _verdicts(layout),
    }
    path = layout.history
    boards = list(json_lines(path))
    if not boards or {**boards[-1], "time": None} != {**board, "time": None}:
        boards.append({"time": time.strftime("%Y-%m-%d %H:%M:%S"), **board})
        with publish(path) as temporary:
            temporary.write_text("".join(json.dumps(each, sort_keys=True) + "\n" for each in boards), encoding="utf-8")
    text = yaml.safe_dump(board["configuration"], sort_keys=False, allow_unicode=True)
    with publish(layout.configuration) as temporary:
        temporary.write_text(text, encoding="utf-8")
    before = boards[-2] if len(boards) > 1 else None
    changes = list(_changes(before, boards[-1])) if before else []
    return {
        "commit": board["commit"],
        "configuration": text,
        "boards": len(boards),
        "since": before and before["time"],
        "changes": changes,
    }


def commit() -> str | None:
    """The commit of the code, `-changed` behind it where files differ from it; None outside of a checkout."""
    try:
        words = ["git", "-C", str(CODE), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=-changed"]
        found = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def _rows(configuration: Configuration, layout: Layout) -> dict[str, int]:
    cards = {name: layout.dataset_card(name) for name in configuration.datasets}
    return {name: read_json(card)["rows"] for name, card in cards.items() if card.exists()}


def _scores(layout: Layout) -> dict[str, float]:
    if not layout.leaderboard.exists():
        return {}
    entries = read_json(layout.leaderboard)["recipes"]
    return {entry["recipe"]: round(entry["score"], 6) for entry in entries if entry.get("score") is not None}


def _verdicts(layout: Layout) -> dict[str, str]:
    entries = read_json(layout.leaderboard)["recipes"] if layout.leaderboard.exists() else []
    return {entry["recipe"]: entry["verdict"] for entry in entries}


def _changes(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """In words, what is another than on the board before."""
    if before["commit"] != now["commit"]:
        yield f"code: {before['commit']} → {now['commit']}"
    for title, key in CHANGES.items():
        old, new = dict(_flat(before.get(key, {}))), dict(_flat(now[key]))
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                yield f"{title}{name}: {old.get(name, 'none')} → {new.get(name, 'none')}"


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every leaf."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value

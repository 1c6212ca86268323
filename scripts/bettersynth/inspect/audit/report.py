"""The report: a leaderboard of the results that are there, and the page as it was written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import SEAL, json_lines, sha256_json
from bettersynth.inspect.audit.links import Audited, Link
from bettersynth.report.early_loss import early_loss_of
from bettersynth.report.leaderboard import leaderboard_of
from bettersynth.workflow.manifest import Problem


def links(audited: Audited) -> Iterator[Link]:
    """What is said of the results."""
    layout = audited.layout
    made = {layout.leaderboard: leaderboard_of, layout.early_loss: early_loss_of}
    yield from (Link(path, partial(_said, audited, path, again)) for path, again in made.items() if path.exists())
    if layout.report_card.exists():
        yield Link(layout.report_card, partial(_page, audited))


def _said(audited: Audited, path: Path, again: Callable[[Configuration, Layout], dict[str, Any]]) -> Iterator[Problem]:
    said = {key: value for key, value in audited.card(path).items() if key != SEAL}
    if sha256_json(said) != sha256_json(_as_read(again(audited.configuration, audited.layout))):
        yield audited.outdated(path, "is not what the results that are there make")


def _as_read(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _page(audited: Audited) -> Iterator[Problem]:
    audited.check_beside(audited.layout.report_card)
    list(json_lines(audited.layout.history))
    yield from ()

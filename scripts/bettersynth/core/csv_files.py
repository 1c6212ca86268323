"""Tables as CSV, for spreadsheets and plots."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bettersynth.core.publish import publish


def write_csv(path: Path, lines: Iterable[Sequence[Any]]) -> Path:
    """Publish a table, its head first, and return its path; an unknown value is left empty."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    with publish(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
    return path

"""What a kind of work costs, as the thing that does it states: measured by this project, or guessed."""

from __future__ import annotations

from typing import NamedTuple


class Cost(NamedTuple):
    """Units per second on one H100, end to end from files on a disk, or on one core of a CPU: a guess."""

    per_second: float
    start: float = 15
    """Seconds before the work begins: Python, libraries, models."""
    bytes: float = 25
    """Bytes left for each unit of work."""
    measured: tuple[str, str] | None = None
    """The project's own measurement, for a GPU: file in `docs/measurements/`, figure."""

"""How fast work goes once it goes: without starting, loading and compiling, which a small trial is mostly made of."""

from __future__ import annotations

import time
from typing import Any


class Steady:
    """Counts units of work as they get done; the first batch and all before it are left out."""

    def __init__(self) -> None:
        self._first: float | None = None
        self._last = 0.0
        self._amount = 0

    def add(self, amount: int) -> None:
        """So many units are done now."""
        self._last = time.monotonic()
        if self._first is None:
            self._first = self._last
        else:
            self._amount += amount

    def facts(self) -> dict[str, Any]:
        """For a card: the units after the first batch and the seconds that they took; nothing where there are none."""
        if self._first is None or not self._amount:
            return {}
        return {"steady": {"amount": self._amount, "seconds": round(self._last - self._first, 3)}}

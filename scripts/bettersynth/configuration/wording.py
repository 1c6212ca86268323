"""Parts of sentences about a configuration."""

from __future__ import annotations

from collections.abc import Sequence


def size(rows: int | None, fraction: float | None) -> str:
    """A number of rows or a share of them."""
    return f"{rows:,}" if rows is not None else f"{fraction:.1%}"


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

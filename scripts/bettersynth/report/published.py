"""The contest's published tables through the comparison: which differences one run of each recipe supports.

Ratios to the baseline are turned back into the questions that were answered, and a row's level is the mean over both
benchmarks of the logarithm, as on a board of ours. Each row is one run; how far runs scatter is taken from rows whose
sets of pairs are nearly the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from bettersynth.report.comparison import SIGNIFICANCE, Comparison, Design, Difference, holm

QUESTIONS = 1176
"""Of MMBench, right only when all their rotations are."""


class PublishedPair(NamedTuple):
    """Two rows beside each other: the difference of their levels, and its p among all pairs."""

    first: str
    second: str
    difference: Difference
    p_holm: float


class PublishedBoard:
    """Rows of a ledger of published experiments that have both ratios."""

    def __init__(self, ledger: dict[str, Any], prefixes: Sequence[str]) -> None:
        """Of rows whose names begin with one of these letters; the ledger's `alike` rows tell the scatter."""
        self.per_ratio = float(ledger["questions_per_ratio"])
        rows = {name: row for name, row in ledger["rows"].items() if "mmbench" in row and "textvqa" in row}
        self.alike = [name for name in ledger["alike"] if name in rows]
        self.names = [name for name in rows if name.rstrip("0123456789") in prefixes and name not in self.alike]
        self.stages = {name: rows[name]["stages"] for name in rows}
        levels = [self._level(rows[name]) for name in [*self.alike, *self.names]]
        recipe = [0] * len(self.alike) + list(range(1, 1 + len(self.names)))
        self.comparison = Comparison(Design(np.array(recipe), np.arange(len(recipe))), np.array(levels))

    def hits(self, row: dict[str, Any]) -> int:
        """Questions of MMBench that were answered. Raises ValueError for a ratio that is no whole number of them."""
        hits = row["mmbench"] * self.per_ratio
        if abs(hits - round(hits)) > 0.01:
            raise ValueError(
                f"{row['stages']}: ratio {row['mmbench']} is {hits:.3f} questions, which is no whole number"
            )
        return round(hits)

    def _level(self, row: dict[str, Any]) -> float:
        mmbench = np.log((self.hits(row) + 0.5) / (QUESTIONS + 1))
        return float((mmbench + np.log(row["textvqa"])) / 2)

    @property
    def scatter(self) -> float:
        """Standard deviation of the level between runs."""
        return float(np.sqrt(self.comparison.scatter))

    def pairs(self) -> list[PublishedPair]:
        """Every two rows, those that differ most surely first."""
        numbered = list(combinations(range(1, 1 + len(self.names)), 2))
        found = [(pair, difference) for pair in numbered if (difference := self.comparison.difference(*pair))]
        adjusted = holm([difference.p for _, difference in found])
        made = [
            PublishedPair(self.names[first - 1], self.names[second - 1], difference, p)
            for ((first, second), difference), p in zip(found, adjusted, strict=True)
        ]
        return sorted(made, key=lambda pair: pair.difference.p)

    def sentence(self) -> str:
        """What the table supports."""
        pairs = self.pairs()
        plain = sum(pair.difference.p <= SIGNIFICANCE for pair in pairs)
        kept = sum(pair.p_holm <= SIGNIFICANCE for pair in pairs)
        return (
            f"Of {len(pairs)} pairs of {len(self.names)} rows, one run each, {plain} differ at p ≤ {SIGNIFICANCE:g}, "
            f"and {kept or 'none'} after Holm's correction; runs scatter by {self.scatter:.1%} of their level, by "
            f"{', '.join(self.alike)}."
        )

"""Scores in two bytes each, so that every decision of a closed interval stays exact.

A score's `edges` are numbers in ascending order: the bounds that can be set. The code of a value says between which
edges it lies, or on which: `2 i + 1` for `edges[i]` itself, `2 i` for what lies between `edges[i - 1]` and `edges[i]`.
So a value is at least `edges[i]` exactly if its code is at least `2 i + 1`, and at most `edges[i]` exactly if its code
is at most that. Of a score with few distinct values all of them are edges: then any bound is decided exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bettersynth.datasets.values import Values

NOT_SCORED, NOT_A_NUMBER, NO_VALUE = 65_533, 65_534, 65_535
"""Codes of what no interval keeps: above all others."""
MOST_DISTINCT = 16_000
"""Distinct values of a score that are all edges."""
GRID = 8_000
"""Round numbers, at most, that are edges of another score."""
RANKS = 12_000
"""Edges of it that part its values into equal heaps."""
MOST_DIGITS = 18
MOST_WORDS = 1_000

Codes = npt.NDArray[np.uint16]


class Coded(NamedTuple):
    """A score of n rows: a code for each, and all codes of the rows that have several values."""

    edges: npt.NDArray[np.float64]
    words: list[str] | None
    complete: bool
    """Whether every distinct value is an edge."""
    first: Codes
    """`[n]`: the code of the row's first value."""
    several: npt.NDArray[np.uint32]
    """Rows with several values, in order."""
    lengths: Codes
    """How many each of them has."""
    others: Codes
    """All codes of these rows, one after the other."""


def encode(values: Values, bounds: Sequence[float] = ()) -> Coded | None:
    """The codes of a score; `bounds` are edges whatever else. None for words of which there are too many to choose."""
    if values.numeric:
        known = values.flat[np.isfinite(values.flat)]
        edges, complete = edges_of(known, bounds)
        codes = number_codes(values.flat, edges)
        return _by_rows(Coded(edges, None, complete, codes, *_NONE), values)
    words, counts = np.unique(values.flat.astype(str), return_counts=True)
    if len(words) > MOST_WORDS:
        return None
    order = np.argsort(-counts, kind="stable")
    places = np.empty(len(words), np.uint16)
    places[order] = np.arange(len(words))
    codes = places[np.searchsorted(words, values.flat.astype(str))] if len(words) else np.empty(0, np.uint16)
    return _by_rows(Coded(np.empty(0), words[order].tolist(), True, codes, *_NONE), values)


_NONE = (np.empty(0, np.uint32), np.empty(0, np.uint16), np.empty(0, np.uint16))


def _by_rows(coded: Coded, values: Values) -> Coded:
    counts, codes = values.counts, coded.first
    first = np.full(len(counts), NO_VALUE, np.uint16)
    first[counts > 0] = codes[values.starts[:-1][counts > 0]]
    several = np.flatnonzero(counts > 1)
    others = codes[np.repeat(counts > 1, counts)]
    return coded._replace(
        first=first, several=several.astype(np.uint32), lengths=counts[several].astype(np.uint16), others=others
    )


def number_codes(values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> Codes:
    """The code of each value."""
    below = np.searchsorted(edges, values)
    on_edge = below < len(edges)
    on_edge[on_edge] = edges[below[on_edge]] == values[on_edge]
    codes = (2 * below + on_edge).astype(np.uint16)
    codes[~np.isfinite(values)] = NOT_A_NUMBER
    return codes


def edges_of(known: npt.NDArray[np.float64], bounds: Sequence[float]) -> tuple[npt.NDArray[np.float64], bool]:
    """Edges for finite values, and whether all of these are among them."""
    given = np.array([bound for bound in bounds if np.isfinite(bound)], np.float64)
    distinct = np.unique(known)
    if len(distinct) <= MOST_DISTINCT:
        return np.union1d(distinct, given), True
    places = np.linspace(0, len(known) - 1, RANKS).astype(int)[1:]
    ordered = np.sort(known)
    above = np.unique(ordered[places])
    below = distinct[np.maximum(np.searchsorted(distinct, above) - 1, 0)]
    short = shortest(below[above > below], above[above > below])
    ends = distinct[[0, -1]]
    return np.unique(np.concatenate([given, ends, _grid(*ends), short])), False


def _grid(low: float, high: float) -> npt.NDArray[np.float64]:
    """Multiples of 1, 2 or 5 times a power of ten, `GRID` at most, within the range."""
    raw = (high - low) / GRID
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    digits = int(max(0, np.ceil(-np.log10(step) - 1e-9)))
    return np.round(np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step, digits)


def shortest(low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """For each pair `low < high`, the number with the fewest decimals that is above `low` and at most `high`."""
    found = high.copy()
    left = np.ones(len(high), bool)
    for digits in range(MOST_DIGITS):
        scale = 10.0**digits
        candidate = np.floor(high * scale) / scale
        fits = left & (candidate > low) & (candidate <= high) & (np.abs(high) * scale < 2.0**53)
        found[fits] = candidate[fits]
        left &= ~fits
    return found

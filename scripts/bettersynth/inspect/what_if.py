"""What thresholds would keep, before anything is filtered: by operator and quantile, in pairs, and together.

Rows are kept by the rule of the verb `filter`: closed intervals, any of a row's values, a row without one dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bettersynth.configuration.checks import unknown
from bettersynth.configuration.threshold import Threshold
from bettersynth.core.errors import PersonError
from bettersynth.core.names import StatKey
from bettersynth.datasets.analysis import correlation
from bettersynth.datasets.columns import Column
from bettersynth.datasets.values import Values, plain
from bettersynth.datasets.verbs.filter import kept, kept_together

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
MOST_JOINT = 10_000
"""Combinations of thresholds that are asked for at one time."""
SIDES = {">=": "min", "<=": "max", "≥": "min", "≤": "max"}
BOUND = re.compile(rf"(?P<key>[a-z0-9_.]+)\s*(?P<side>{'|'.join(SIDES)})\s*(?P<values>[^\s<>=≤≥]+)")


class Bound(NamedTuple):
    """One end of an interval of one score."""

    key: str
    side: str
    value: float

    @property
    def threshold(self) -> Threshold:
        """As the verb `filter` takes it."""
        return Threshold.model_validate({self.side: self.value})

    def __str__(self) -> str:
        return f"{self.key} {'≥' if self.side == 'min' else '≤'} {plain(self.value)}"


def by_quantile(columns: Sequence[Column]) -> Iterator[dict[str, Any]]:
    """For each score and quantile: its value, and the rows kept by it as a lower and as an upper bound."""
    for column in columns:
        known = column.values.flat[np.isfinite(column.values.flat)]
        if not len(known):
            continue
        for share, value in zip(QUANTILES, np.quantile(known, QUANTILES).tolist(), strict=True):
            rows = {side: int(_keep(column.values, side, value).sum()) for side in ("min", "max")}
            yield {"score": str(column.key), "quantile": share, "value": value, **rows}


def _keep(values: Values, side: str, value: float) -> npt.NDArray[np.bool_]:
    return kept(values, Threshold.model_validate({side: value}))


def in_pairs(columns: Sequence[Column], bounds: Sequence[Bound]) -> Iterator[dict[str, Any]]:
    """For each two scores: their correlation, and how much what their bounds keep overlaps.

    `key`, `side` and `value` are one bound, those with `other_` the other: of `bounds`, or the score's median. `both`
    counts the rows that both keep, `expected` those that both would keep if one had nothing to do with the other,
    `jaccard` is the share of both in either.
    """
    correlated = correlation(columns)["matrix"]
    given = {bound.key: bound for bound in reversed(bounds)}
    cuts = [given.get(str(column.key)) or _median(column) for column in columns]
    keeps = [_keep(column.values, cut.side, cut.value) for column, cut in zip(columns, cuts, strict=True)]
    for one, other in combinations(range(len(columns)), 2):
        first, second = int(keeps[one].sum()), int(keeps[other].sum())
        both = int((keeps[one] & keeps[other]).sum())
        yield {
            **{name: getattr(cuts[one], name) for name in Bound._fields},
            **{f"other_{name}": getattr(cuts[other], name) for name in Bound._fields},
            "correlation": correlated[one][other],
            "kept": first,
            "kept_other": second,
            "both": both,
            "expected": first * second / (len(keeps[one]) or 1),
            "jaccard": both / ((first + second - both) or 1),
        }


def _median(column: Column) -> Bound:
    known = column.values.flat[np.isfinite(column.values.flat)]
    return Bound(str(column.key), "min", float(np.median(known)) if len(known) else 0.0)


def parse(text: str, columns: Sequence[Column]) -> list[list[Bound]]:
    """Lists of bounds as a person writes them: `similarity>=0.28,0.3 words_num<=20`, a list for each.

    Raises PersonError for what cannot be read, and for scores that the rows do not have.
    """
    known = {str(column.key) for column in columns}
    found = [(match["key"], SIDES[match["side"]], match["values"]) for match in BOUND.finditer(text)]
    rest = BOUND.sub("", text).strip(" ,;")
    if rest or not found:
        raise PersonError(f"KEEP: {rest or text!r} is no bound; write such as KEEP='words_num>=6,8 image_size<=1e6'")
    for key, _, _ in found:
        if key not in known:
            raise PersonError(unknown("KEEP", "score of these rows", key, known))
    return [[Bound(key, side, _number(value)) for value in values.strip(",").split(",")] for key, side, values in found]


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise PersonError(f"KEEP: {text!r} is no number")
    return number


def together(columns: Sequence[Column], bounds: Sequence[Sequence[Bound]]) -> Iterator[tuple[list[Bound], int]]:
    """Every combination of one bound of each list, and how many rows it keeps. Raises PersonError for far too many."""
    combined = int(np.prod([len(several) for several in bounds]))
    if combined > MOST_JOINT:
        raise PersonError(f"KEEP: {combined:,} combinations of bounds; at most {MOST_JOINT:,} at one time")
    by_key = {str(column.key): column for column in columns}
    for chosen in product(*bounds):
        thresholds: dict[str, dict[str, float]] = {}
        for bound in chosen:
            thresholds.setdefault(bound.key, {})[bound.side] = bound.value
        if all(ends.get("min", -np.inf) <= ends.get("max", np.inf) for ends in thresholds.values()):
            yield list(chosen), int(_kept_by(by_key, thresholds).sum())


def _kept_by(columns: Mapping[str, Column], thresholds: Mapping[str, Mapping[str, float]]) -> npt.NDArray[np.bool_]:
    """As the verb `filter` keeps rows: several stats of one operator are asked of one value."""
    loaded = {key: (columns[key].values, Threshold.model_validate(ends)) for key, ends in thresholds.items()}
    keep = np.logical_and.reduce([kept(*one) for one in loaded.values()])
    by_operator: dict[str, list[tuple[Values, Threshold]]] = {}
    for key, one in loaded.items():
        by_operator.setdefault(StatKey.parse(key).operator, []).append(one)
    for several in by_operator.values():
        if len(several) > 1 and all(np.array_equal(one.starts, several[0][0].starts) for one, _ in several):
            keep &= kept_together(several)
    return keep

"""Keep what scores between bounds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bettersynth.configuration.checks import is_word, kinds, score_problems
from bettersynth.configuration.section import Value
from bettersynth.configuration.threshold import Threshold
from bettersynth.configuration.verb import Verb
from bettersynth.core.names import StatKey
from bettersynth.datasets.ledger import Outcome, Reasons, split
from bettersynth.datasets.values import Values, bound_text

if TYPE_CHECKING:
    from bettersynth.configuration.types import Configuration
    from bettersynth.datasets.step import Step

Together = list[tuple[Values, Threshold]]
"""Values and thresholds of several stats of one operator."""


class Filter(Verb, Value[dict[str, Threshold]]):
    """Operator (or `operator.stat`) and its threshold; every one must hold."""

    def operators(self, configuration: Configuration) -> list[str]:
        """Those of the thresholds."""
        return sorted({key.operator for key in self.thresholds()})

    def thresholds(self) -> dict[StatKey, Threshold]:
        """All there are."""
        return {StatKey.parse(score): threshold for score, threshold in self.root.items()}

    def also_decides(self) -> dict[str, Any]:
        """That stats of one operator are asked of one value."""
        several = len({key.operator for key in self.thresholds()}) < len(self.root)
        return {"together": True} if several else {}

    def problems(self, key: str, configuration: Configuration) -> Iterator[str]:
        """Scores that there are not, or that cannot be compared so."""
        for score, threshold in self.root.items():
            yield from score_problems(configuration, f"{key}.{score}", score)
            found, word = kinds(configuration, score), is_word(configuration, score)
            if "vector" in found:
                yield f"{key}.{score}: this score is a vector; only `cluster` reads those"
            if threshold.one_of and found and not word:
                yield f"{key}.{score}: `one_of` is for scores that are words; use `min` and `max`"
            if not threshold.one_of and word:
                yield f"{key}.{score}: this score is a word; use `one_of: […]`"

    def apply(self, step: Step) -> Outcome:
        """A row that fails several thresholds is dropped for the first one configured."""
        reasons = Reasons(step.rows.num_rows)
        could, must = np.ones((2, step.rows.num_rows), dtype=bool)
        loaded = {key: step.values(key) for key in self.thresholds()}
        for key, threshold in self.thresholds().items():
            tolerance = step.tolerance(key)
            drop_outside(reasons, loaded[key], threshold)
            could &= kept(loaded[key], threshold, tolerance)
            must &= kept(loaded[key], threshold, -tolerance)
        for operator, several in self._together(loaded).items():
            tolerance = step.tolerance(StatKey(operator))
            reasons.drop(~kept_together(several), operator, "no value within every bound")
            could &= kept_together(several, tolerance)
            must &= kept_together(several, -tolerance)
        return split(step.rows, reasons)._replace(near=int((could & ~must).sum()))

    def _together(self, loaded: Mapping[StatKey, Values]) -> dict[str, Together]:
        """Operator → its stats that are asked of any value at one time: those with as many values in every row."""
        found: dict[str, Together] = defaultdict(list)
        for key, threshold in self.thresholds().items():
            if threshold.any_or_all == "any":
                found[key.operator].append((loaded[key], threshold))
        return {
            operator: several
            for operator, several in found.items()
            if len(several) > 1 and all(np.array_equal(values.starts, several[0][0].starts) for values, _ in several)
        }

    def brief(self) -> str:
        """A line for each threshold."""
        return "\n".join(f"{score} {threshold.brief()}" for score, threshold in self.root.items())

    def sentence(self, configuration: Configuration) -> str:
        """All thresholds."""
        conditions = (f"{score} {threshold.sentence()}" for score, threshold in self.root.items())
        return "keep the rows with " + " and ".join(conditions)


def drop_outside(reasons: Reasons, values: Values, threshold: Threshold) -> None:
    """Drop rows by Data-Juicer's rule: a closed interval, over any or all of a row's values.

    A row is dropped for its first value outside. Unlike Data-Juicer, a row without any value is dropped too.
    """
    inside = _inside(values, threshold)
    valued = values.counts > 0
    dropped = np.flatnonzero(~kept(values, threshold) & valued)
    outside = np.flatnonzero(~inside)
    found = values.flat[outside[np.searchsorted(outside, values.starts[dropped])]]
    reasons.drop(~valued, values.label, "no value")
    reasons.drop(dropped, values.label, _bounds(threshold, found), list(found))


def _bounds(threshold: Threshold, found: npt.NDArray[Any]) -> list[str]:
    """The bound that each value does not keep."""
    if threshold.one_of is not None:
        return [f"not one of {', '.join(threshold.one_of)}"] * len(found)
    bounds = np.full(len(found), "not a number", dtype=object)
    for side, value in (("min", threshold.min), ("max", threshold.max)):
        if value is not None:
            bounds[found < value if side == "min" else found > value] = bound_text(side, value)
    return bounds.tolist()


def kept(values: Values, threshold: Threshold, margin: float = 0.0) -> npt.NDArray[np.bool_]:
    """For each row, whether it is kept by an interval that is wider by `margin` at both ends."""
    return _hit(values, _inside(values, threshold, margin), threshold)


def kept_together(several: Together, margin: float = 0.0) -> npt.NDArray[np.bool_]:
    """For each row, whether one and the same of its values' places lies inside of every interval.

    So the stock `image_shape_filter` asks of one picture both its width and its height, with `any`.
    """
    values, threshold = several[0]
    return _hit(values, np.logical_and.reduce([_inside(*one, margin) for one in several]), threshold)


def _hit(values: Values, inside: npt.NDArray[np.bool_], threshold: Threshold) -> npt.NDArray[np.bool_]:
    """For each row, whether any or all of its values are inside."""
    hits = np.diff(np.concatenate([[0], np.cumsum(inside)])[values.starts])
    return (hits > 0) if threshold.any_or_all == "any" else (hits == values.counts) & (values.counts > 0)


def _inside(values: Values, threshold: Threshold, margin: float = 0.0) -> npt.NDArray[np.bool_]:
    """For each value, whether it lies in the interval, made wider by `margin` at both ends."""
    if threshold.one_of is not None:
        if values.numeric and len(values.flat):
            raise ValueError(f"`{values.label}` is a number: give `min` or `max` instead of `one_of`")
        return np.isin(values.flat.astype(object), threshold.one_of)
    if not values.numeric:
        raise ValueError(f"`{values.label}` is a word: give `one_of` instead of `min` and `max`")
    low = -np.inf if threshold.min is None else threshold.min
    high = np.inf if threshold.max is None else threshold.max
    return (values.flat >= low - margin) & (values.flat <= high + margin)

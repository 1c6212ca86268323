"""Scores of a dataset's rows, and Data-Juicer's keep rule over them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bettersynth.configuration.datasets import Threshold
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json
from bettersynth.core.records import read_table
from bettersynth.datasets.ledger import Reasons, no_reasons
from bettersynth.pool.rows import align, records_sha256
from bettersynth.workflow.plan import Plan


class Values(NamedTuple):
    """Values of n rows: row i has `flat[starts[i]:starts[i + 1]]`; `label` is `<operator>.<stat>`."""

    label: str
    flat: npt.NDArray[Any]
    starts: npt.NDArray[np.int64]

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Number of values of each row."""
        return np.diff(self.starts)

    @property
    def numeric(self) -> bool:
        """Whether the values are numbers, not words."""
        return self.flat.dtype != object


def load_values(rows: pa.Table, key: str, layout: Layout, plan: Plan) -> Values:
    """The values of `key`, an operator or `operator.stat`, for every row in order.

    Raises ValueError for a missing or stale score, and for an operator with several stats when none is chosen.
    """
    operator, _, stat = key.partition(".")
    table = load_scores(rows, operator, layout, plan)
    stats = [name for name in table.column_names if name != "id"]
    if not stat and len(stats) == 1:
        stat = stats[0]
    if stat not in stats:
        choices = ", ".join(f"`{operator}.{name}`" for name in stats)
        raise ValueError(f"`{key}` does not name one stat of the operator `{operator}`; write one of {choices}")
    return values_of(f"{operator}.{stat}", table[stat])


def load_scores(rows: pa.Table, operator: str, layout: Layout, plan: Plan) -> pa.Table:
    """The scores of one operator, `id` and its stats, for every row in order; raises ValueError when stale."""

    def scores_of(source: str, ids: pa.ChunkedArray) -> pa.Table:
        _check_current(source, operator, layout, plan)
        return read_table(layout.scores(source, operator))

    return align(rows, scores_of, f"scores of `{operator}`")


def _check_current(source: str, operator: str, layout: Layout, plan: Plan) -> None:
    path = layout.scores(source, operator)
    shards = read_json(layout.scores_card(source, operator))["shards"]
    scored = {shard: entry["records"] for shard, entry in shards.items()}
    present = records_sha256(source, layout, plan)
    other = sorted(shard for shard in present.keys() | scored.keys() if present.get(shard) != scored.get(shard))
    if other:
        raise ValueError(
            f"{path} was made from other records than the present {layout.records(source, other[0])} "
            f"({len(other)} shards differ); score them again: `snakemake --force {path}`"
        )


def values_of(label: str, column: pa.ChunkedArray | pa.Array) -> Values:
    """Values from a column of lists, numbers or words; a null row has no value, a null in a list is not a number."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        flat = pc.list_flatten(column)
    else:
        counts = column.is_valid().to_numpy(zero_copy_only=False).astype(np.int64)
        flat = column.drop_null()
    if not pa.types.is_string(flat.type):
        flat = pc.cast(flat, pa.float64())
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    return Values(label, flat.to_numpy(zero_copy_only=False), starts)


def threshold_reasons(values: Values, threshold: Threshold) -> Reasons:
    """Why each row is dropped, by Data-Juicer's rule: a closed interval, over any or all of a row's values.

    A row is dropped for its first value outside. Unlike Data-Juicer, a row without any value is dropped too.
    """
    inside = _inside(values, threshold)
    kept = _kept(values, inside, threshold)
    reasons = no_reasons(len(kept))
    reasons[values.counts == 0] = f"{values.label} no value"

    dropped = np.flatnonzero(~kept & (values.counts > 0))
    outside = np.flatnonzero(~inside)
    first = outside[np.searchsorted(outside, values.starts[dropped])]
    reasons[dropped] = _explain(values, threshold, values.flat[first])
    return reasons


def kept_by_margin(values: Values, threshold: Threshold, margin: float) -> npt.NDArray[np.bool_]:
    """For each row, whether it is kept by an interval that is wider by `margin` at both ends."""
    return _kept(values, _inside(values, threshold, margin), threshold)


def kept_together(several: Sequence[tuple[Values, Threshold]], margin: float = 0.0) -> npt.NDArray[np.bool_]:
    """For each row, whether one and the same of its values' places lies inside of every interval.

    So the stock `image_shape_filter` asks of one picture both its width and its height, with `any`.
    """
    values, threshold = several[0]
    inside = np.logical_and.reduce([_inside(*one, margin) for one in several])
    return _kept(values, inside, threshold)


def asked_together(
    thresholds: dict[str, Threshold], loaded: dict[str, Values]
) -> dict[str, list[tuple[Values, Threshold]]]:
    """Operator → its stats that are asked of any value at one time: those with as many values in every row."""
    found: dict[str, list[tuple[Values, Threshold]]] = defaultdict(list)
    for key, threshold in thresholds.items():
        if threshold.any_or_all == "any":
            found[key.partition(".")[0]].append((loaded[key], threshold))
    return {
        operator: several
        for operator, several in found.items()
        if len(several) > 1 and all(np.array_equal(values.starts, several[0][0].starts) for values, _ in several)
    }


def _kept(values: Values, inside: npt.NDArray[np.bool_], threshold: Threshold) -> npt.NDArray[np.bool_]:
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


def _explain(values: Values, threshold: Threshold, found: npt.NDArray[Any]) -> Reasons:
    reasons = no_reasons(len(found))
    if threshold.one_of is not None:
        reasons[:] = f"{values.label} not one of {', '.join(threshold.one_of)}"
        return reasons
    reasons[:] = f"{values.label} not a number"
    if threshold.min is not None:
        reasons[found < threshold.min] = f"{values.label} below {plain(threshold.min)}"
    if threshold.max is not None:
        reasons[found > threshold.max] = f"{values.label} above {plain(threshold.max)}"
    return reasons


def plain(number: float) -> str:
    """A number as a person writes it: `0.9984`, `10`."""
    return np.format_float_positional(number, trim="-")


def mean_per_row(values: Values) -> tuple[npt.NDArray[np.float64], Reasons]:
    """The mean of each row's values, and why it has none (NaN then)."""
    if not values.numeric:
        raise ValueError(f"`{values.label}` is a word and cannot be ranked by")
    row = np.repeat(np.arange(len(values.counts)), values.counts)
    sums = np.bincount(row, weights=values.flat, minlength=len(values.counts))
    means = np.divide(sums, values.counts, out=np.full(len(sums), np.nan), where=values.counts > 0)
    reasons = no_reasons(len(sums))
    reasons[np.isnan(means)] = f"{values.label} not a number"
    reasons[values.counts == 0] = f"{values.label} no value"
    return means, reasons

"""Values that a score has for rows: one, several or none each."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


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


def plain(number: float) -> str:
    """A number as a person writes it: `0.9984`, `10`."""
    return np.format_float_positional(number, trim="-")


def bound_text(side: str, bound: float) -> str:
    """The reason of a value beyond a bound, the `min` or the `max`: `below 0.2`, `above 10`."""
    return f"{'below' if side == 'min' else 'above'} {plain(bound)}"

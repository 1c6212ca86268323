"""What a verb did to its rows: those that stay, those that go and why, and a ledger that adds up."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bettersynth.pool.rows import ROWS

DROPPED = pa.schema([*ROWS, ("reason", pa.string())])

Reasons = npt.NDArray[np.object_]
"""One entry per row: why it is dropped, or None where it stays."""


class Outcome(NamedTuple):
    """A verb's result. `rows_in` counts the rows of `from` (for `union`, of every parent)."""

    rows: pa.Table
    dropped: pa.Table
    rows_in: int
    added: int = 0
    changed: int = 0
    unmatched: int | None = None
    """Of a splice, rows that were rewritten without a better version: kept as they were, or dropped."""
    near: int = 0
    """Of a filter, rows that another device or precision could decide otherwise."""

    def ledger(self) -> dict[str, Any]:
        """`{"in", "added", "out", "changed", "dropped": {reason: n}}`; raises AssertionError if it does not add up."""
        counts = pc.value_counts(self.dropped["reason"]).to_pylist()
        dropped = {entry["values"]: entry["counts"] for entry in counts}
        out = self.rows.num_rows
        if self.rows_in + self.added != out + sum(dropped.values()):
            raise AssertionError(f"in {self.rows_in} + added {self.added} is not out {out} + dropped {dropped}")
        ledger = {
            "in": self.rows_in,
            "added": self.added,
            "out": out,
            "changed": self.changed,
            "dropped": dict(sorted(dropped.items())),
        }
        if self.unmatched is not None:
            ledger["unmatched"] = self.unmatched
        return ledger | ({"near": self.near} if self.near else {})


def no_reasons(rows: int) -> Reasons:
    """None for every row."""
    return np.empty(rows, dtype=np.object_)  # which NumPy fills with None


def stays(reasons: Reasons) -> npt.NDArray[np.bool_]:
    """For each row, whether it has no reason to go."""
    return pd.isna(reasons)


def split(rows: pa.Table, reasons: Reasons, *, result: pa.Table | None = None) -> Outcome:
    """Drop the rows that have a reason, keep the others in order.

    `result`, of the same length, holds what takes the place of each row that stays; its source may differ.
    """
    result = rows if result is None else result
    kept = pa.array(stays(reasons))
    why = pa.array(reasons, pa.string())
    dropped = pa.table([*rows.columns, why], DROPPED).filter(pc.invert(kept))
    moved = pc.and_(pc.not_equal(rows["source"], result["source"]), kept)
    return Outcome(result.filter(kept), dropped, rows.num_rows, changed=pc.sum(moved).as_py() or 0)

"""What a verb did to its rows: those that stay, those that go and why, and a ledger that adds up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bettersynth.core.records import ROWS
from bettersynth.core.tables import read_table, write_table

PARTS = ("key", "bound", "value")
DROPPED = pa.schema([*ROWS, *((part, pa.string()) for part in PARTS)])
"""Rows that go, each with its reason."""


class Reason(NamedTuple):
    """Why a row goes: what was looked at, the bound that it does not keep, and what was found there."""

    verb: str | None
    key: str
    """A score (`words_num.num_words`), or what there is to say (`not sampled`)."""
    bound: str = ""
    """Such as `below 6`; nothing where the key says all."""
    value: str | None = None
    """The row's own: a score, or the id of the row that it is a duplicate of."""

    @property
    def words(self) -> str:
        """The reason in words, without the row's own value: those alike in words are counted together."""
        return f"{self.key} {self.bound}".rstrip()

    def __str__(self) -> str:
        return self.words if self.value is None else f"{self.words}: {self.value}"


class Reasons:
    """For each of some rows, why it goes; or nothing yet."""

    def __init__(self, rows: int) -> None:
        self._parts = {part: np.empty(rows, dtype=np.object_) for part in PARTS}  # which NumPy fills with None

    def __len__(self) -> int:
        return len(self._parts["key"])

    @property
    def stays(self) -> npt.NDArray[np.bool_]:
        """For each row, whether it has no reason to go."""
        return np.array([key is None for key in self._parts["key"]], dtype=bool)

    def drop(self, which: Any, key: Any, bound: Any = "", value: Any = None) -> None:
        """Give a reason to the rows `which` (a mask or places), of those that have none yet.

        Key, bound and value are one for all of these rows, or an array or list with one for each.
        """
        chosen = np.asarray(which)
        places = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        first = self.stays[places]
        for part, given in zip(PARTS, (key, bound, value), strict=True):
            one_each = isinstance(given, np.ndarray | list)
            self._parts[part][places[first]] = np.asarray(given, dtype=object)[first] if one_each else given

    def columns(self) -> list[pa.Array]:
        """Key, bound and value of every row as text."""
        return [pa.array(map(_text, self._parts[part]), pa.string()) for part in PARTS]

    def words(self) -> list[str | None]:
        """The reasons in words, without values."""
        return _words(*self.columns()[:2]).to_pylist()


def _text(value: Any) -> str | None:
    """Text as it is; a number so short that it is exact."""
    return value if value is None or isinstance(value, str) else repr(float(value)).removesuffix(".0")


def _words(key: Any, bound: Any) -> Any:
    return pc.utf8_rtrim_whitespace(pc.binary_join_element_wise(key, pc.fill_null(bound, ""), " "))


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
        """`{"in", "added", "out", "changed", "dropped": {words: n}}`; raises AssertionError if it does not add up."""
        dropped = Counter(_words(self.dropped["key"], self.dropped["bound"]).to_pylist())
        out = self.rows.num_rows
        if self.rows_in + self.added != out + dropped.total():
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


def split(rows: pa.Table, reasons: Reasons, *, result: pa.Table | None = None) -> Outcome:
    """Drop the rows that have a reason, keep the others in order.

    `result`, of the same length, holds what takes the place of each row that stays; its source may differ.
    """
    result = rows if result is None else result
    kept = pa.array(reasons.stays)
    dropped = pa.table([*rows.columns, *reasons.columns()], DROPPED).filter(pc.invert(kept))
    moved = pc.and_(pc.not_equal(rows["source"], result["source"]), kept)
    return Outcome(result.filter(kept), dropped, rows.num_rows, changed=pc.sum(moved).as_py() or 0)


def write_dropped(path: str | Path, dropped: pa.Table, verb: str) -> None:
    """Publish the rows that a dataset left out, with the verb that did it."""
    write_table(path, dropped.combine_chunks().add_column(2, "verb", pa.repeat(verb, dropped.num_rows)))


def read_dropped(path: str | Path) -> pa.Table:
    """Rows that a dataset left out: `id, source, verb, key, bound, value`, also of an older file (see `reason_of`)."""
    table = read_table(path)
    if "reason" not in table.column_names:
        return table
    reasons = [reason_of(row) for row in table.select(["reason"]).to_pylist()]
    columns = [pa.array([reason[part] for reason in reasons], pa.string()) for part in range(len(Reason._fields))]
    return pa.table([*table.select(ROWS.names).columns, *columns], names=[*ROWS.names, *Reason._fields])


def reason_of(row: Mapping[str, Any]) -> Reason:
    """The reason in a row of a table of dropped rows.

    Older tables have it in words, in one column `reason`: it is cut at the first blank, and has no verb and no value.
    """
    if "reason" in row:
        key, _, bound = row["reason"].partition(" ")
        return Reason(None, key, bound)
    return Reason(**{part: row[part] for part in Reason._fields})

"""Orders and sizes of rows that are the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def random_order(rows: pa.Table, seed: int) -> npt.NDArray[np.int64]:
    """Positions of the rows in a random order that depends on the seed and the ids."""
    return sorted_places(rows, draws(rows["id"].to_pylist(), seed), "ascending")


def draws(ids: Sequence[str], seed: int, number: int = 0) -> npt.NDArray[np.uint64]:
    """One random number for each id: the `number`-th of its own."""
    salt = seed.to_bytes(8, "big") + number.to_bytes(8, "big")
    digests = (hashlib.blake2b(record_id.encode(), digest_size=8, salt=salt).digest() for record_id in ids)
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)


def sorted_places(rows: pa.Table, key: npt.NDArray[np.generic], direction: str) -> npt.NDArray[np.int64]:
    """Positions of the rows by key, then id, then source, so that equal keys have one order on every machine."""
    table = pa.table({"key": key, "id": rows["id"], "source": rows["source"]})
    keys = [("key", direction), ("id", "ascending"), ("source", "ascending")]
    return pc.sort_indices(table, sort_keys=keys).to_numpy()


def size_of(rows: int | None, fraction: float | None, total: int) -> int:
    """So many rows, or so large a part of all."""
    return min(rows, total) if rows is not None else round((fraction or 0) * total)


def contains(other: pa.Table, rows: pa.Table) -> npt.NDArray[np.bool_]:
    """For each row, whether its id is in `other`."""
    return pc.is_in(rows["id"], value_set=other["id"]).to_numpy()

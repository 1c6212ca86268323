"""The verbs that need nothing but rows (and, to rank, one number per row). Order is the parent's throughout."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bettersynth.configuration.datasets import Rank, Resample, Sample
from bettersynth.datasets.ledger import Outcome, Reasons, no_reasons, split, stays
from bettersynth.pool.rows import ROWS


def files(rows: pa.Table, index: pa.Table, names: list[str]) -> Outcome:
    """Keep rows whose record came from one of the pool files `names`; `index` is the pool's, `id` and `shard`."""
    shard = index["shard"].take(pc.index_in(rows["id"], value_set=index["id"]))
    file = pc.replace_substring_regex(shard, pattern=r"-\d+$", replacement="")
    reasons = no_reasons(rows.num_rows)
    reasons[~pc.is_in(file, value_set=pa.array(names)).to_numpy()] = "of another file"
    return split(rows, reasons)


def rank(rows: pa.Table, score: npt.NDArray[np.float64], unranked: Reasons, parameters: Rank) -> Outcome:
    """Keep `top` rows (or a `fraction` of all), by `score`, after the best `skip`; ties go by id.

    Rows with a reason in `unranked` have no score and are dropped for it.
    """
    reasons = unranked.copy()
    ranked = np.flatnonzero(stays(reasons))
    direction = "descending" if parameters.descending else "ascending"
    order = ranked[_sorted(rows.take(pa.array(ranked)), score[ranked], direction)]
    size = _size(parameters.top, parameters.fraction, rows.num_rows)
    reasons[order[: parameters.skip]] = "rank: skipped best"
    reasons[order[parameters.skip + size :]] = "rank: below the cut"
    return split(rows, reasons)


def min_max(score: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scaled to 0…1 over the rows that have a score; all 0 when they are equal."""
    if np.isnan(score).all():
        return score
    low, high = np.nanmin(score), np.nanmax(score)
    return (score - low) / (high - low) if high > low else score - low


def sample(rows: pa.Table, parameters: Sample) -> Outcome:
    """Keep a random part that depends on the seed and the ids, not on the rows' order."""
    size = _size(parameters.rows, parameters.fraction, rows.num_rows)
    reasons = no_reasons(rows.num_rows)
    reasons[random_order(rows, parameters.seed)[size:]] = "not sampled"
    return split(rows, reasons)


def random_order(rows: pa.Table, seed: int) -> npt.NDArray[np.int64]:
    """Positions of the rows in a random order that depends on the seed and the ids."""
    return _sorted(rows, _draws(rows["id"].to_pylist(), seed), "ascending")


def _draws(ids: Sequence[str], seed: int, number: int = 0) -> npt.NDArray[np.uint64]:
    """One random number for each id: the `number`-th of its own."""
    salt = seed.to_bytes(8, "big") + number.to_bytes(8, "big")
    digests = (hashlib.blake2b(record_id.encode(), digest_size=8, salt=salt).digest() for record_id in ids)
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)


def resample(rows: pa.Table, parameters: Resample) -> Outcome:
    """Draw rows with replacement, each as likely as any other, by the seed and the ids alone.

    Copies of a row stand together, in the parent's order.
    """
    by_id = _sorted(rows, np.zeros(rows.num_rows), "ascending")
    ids = pd.Series(rows["id"].take(pa.array(by_id)).to_pylist(), dtype=object)
    copies = ids.groupby(ids).cumcount()
    keys = [f"{name}#{copy}" if copy else name for name, copy in zip(ids, copies, strict=True)]
    counts = np.empty(rows.num_rows, np.int64)
    counts[by_id] = _first_arrivals(keys, parameters.rows, parameters.seed)
    reasons = no_reasons(rows.num_rows)
    reasons[counts == 0] = "not drawn"
    drawn = rows.take(pa.array(np.repeat(np.arange(rows.num_rows), counts)))
    return split(rows, reasons)._replace(rows=drawn, added=int(np.maximum(counts - 1, 0).sum()))


def _first_arrivals(keys: list[str], size: int, seed: int) -> npt.NDArray[np.int64]:
    """How many of the first `size` arrivals each key has, when all arrive at random times at the same rate.

    The arrivals of independent Poisson processes of one rate, taken together, are independent draws of their owners.
    So this is a draw with replacement in which each key's random numbers are its own.
    """
    latest, waiting = np.zeros(len(keys)), np.arange(len(keys))
    times, owners = np.empty(0), np.empty(0, np.int64)
    number = 0
    while len(waiting):
        uniform = (_draws([keys[place] for place in waiting], seed, number) + 0.5) / 2.0**64
        latest[waiting] -= np.log(uniform)
        times, owners = np.append(times, latest[waiting]), np.append(owners, waiting)
        if len(times) >= size:
            first = np.argsort(times, kind="stable")[:size]
            times, owners = times[first], owners[first]
            waiting = waiting[latest[waiting] < times[-1]]
        number += 1
    return np.bincount(owners, minlength=len(keys))


def _sorted(rows: pa.Table, key: npt.NDArray[np.generic], direction: str) -> npt.NDArray[np.int64]:
    """Positions of the rows by key, then id, then source, so that equal keys have one order on every machine."""
    table = pa.table({"key": key, "id": rows["id"], "source": rows["source"]})
    keys = [("key", direction), ("id", "ascending"), ("source", "ascending")]
    return pc.sort_indices(table, sort_keys=keys).to_numpy()


def _size(rows: int | None, fraction: float | None, total: int) -> int:
    return min(rows, total) if rows is not None else round((fraction or 0) * total)


def union(parents: list[pa.Table]) -> Outcome:
    """The rows of every parent, one after the other; of rows with one id the first stays."""
    rows = pa.concat_tables(parents)
    return split(rows, duplicates(rows["id"].to_pylist(), "duplicate id"))


def duplicates(keys: Sequence[Hashable], reason: str) -> Reasons:
    """`reason` for every key that was there before."""
    reasons = no_reasons(len(keys))
    reasons[pd.Series(keys, dtype=object).duplicated().to_numpy()] = reason
    return reasons


def intersect(rows: pa.Table, others: dict[str, pa.Table]) -> Outcome:
    """Keep rows whose id is in all of the others."""
    reasons = no_reasons(rows.num_rows)
    for name, other in others.items():
        reasons[~contains(other, rows) & stays(reasons)] = f"not in {name}"
    return split(rows, reasons)


def subtract(rows: pa.Table, others: dict[str, pa.Table]) -> Outcome:
    """Drop rows whose id is in any of the others."""
    reasons = no_reasons(rows.num_rows)
    for name, other in others.items():
        reasons[contains(other, rows) & stays(reasons)] = f"in {name}"
    return split(rows, reasons)


def contains(other: pa.Table, rows: pa.Table) -> npt.NDArray[np.bool_]:
    """For each row, whether its id is in `other`."""
    return pc.is_in(rows["id"], value_set=other["id"]).to_numpy()


def splice(rows: pa.Table, name: str, other: pa.Table, rewritten: list[pa.Table], *, drop_unmatched: bool) -> Outcome:
    """Give each row the source that `other`, the dataset `name`, has for its id; order and multiplicity stay.

    `rewritten` are the rows that were to be rewritten on the way to `other`; with `drop_unmatched` those that did not
    arrive there go.
    """
    place = pc.index_in(rows["id"], value_set=other["id"])
    source = pc.coalesce(other["source"].take(place), rows["source"])
    reasons = no_reasons(rows.num_rows)
    asked = np.logical_or.reduce([contains(asked, rows) for asked in rewritten] or [np.zeros(rows.num_rows, bool)])
    unmatched = asked & place.is_null().to_numpy()
    if drop_unmatched:
        reasons[unmatched] = f"rewritten, not in {name}"
    outcome = split(rows, reasons, result=pa.table([rows["id"], source], ROWS))
    return outcome._replace(unmatched=int(unmatched.sum()))


def repeat(rows: pa.Table, times: int) -> Outcome:
    """All rows, `times` over: the whole set again after the whole set."""
    dropped = split(rows, no_reasons(rows.num_rows)).dropped
    return Outcome(pa.concat_tables([rows] * times), dropped, rows.num_rows, added=rows.num_rows * (times - 1))

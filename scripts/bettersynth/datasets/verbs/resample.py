"""Draw rows with replacement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from bettersynth.configuration.section import Section, Seed
from bettersynth.configuration.verb import Parents, RowCount, Verb
from bettersynth.datasets.ledger import Outcome, Reasons, split
from bettersynth.datasets.order import draws, sorted_places

if TYPE_CHECKING:
    from bettersynth.configuration.types import Configuration
    from bettersynth.datasets.step import Step


class Resample(Verb, Section):
    """Draw rows with replacement, by seed and record id: some appear several times, others not at all."""

    rows: int = Field(ge=1, description="Rows to draw; may be more than there are.")
    seed: Seed = 0

    def expected(self, parents: Parents) -> RowCount:
        """As many as are asked for, if there are any."""
        return RowCount(self.rows if parents.rows[0] else 0)

    def apply(self, step: Step) -> Outcome:
        """Each row is as likely as any other, by the seed and the ids alone.

        Copies of a row stand together, in the parent's order.
        """
        rows = step.rows
        by_id = sorted_places(rows, np.zeros(rows.num_rows), "ascending")
        keys, copies = [], dict[str, int]()
        for name in rows["id"].take(pa.array(by_id)).to_pylist():
            copy = copies[name] = copies.get(name, -1) + 1
            keys.append(f"{name}#{copy}" if copy else name)
        counts = np.empty(rows.num_rows, np.int64)
        counts[by_id] = _first_arrivals(keys, self.rows, self.seed)
        reasons = Reasons(rows.num_rows)
        reasons.drop(counts == 0, "not drawn")
        drawn = rows.take(pa.array(np.repeat(np.arange(rows.num_rows), counts)))
        return split(rows, reasons)._replace(rows=drawn, added=int(np.maximum(counts - 1, 0).sum()))

    def brief(self) -> str:
        """How many."""
        return f"draw {self.rows:,} with replacement"

    def sentence(self, configuration: Configuration) -> str:
        """How many, and what decides."""
        return (
            f"draw {self.rows:,} rows with replacement, by seed {self.seed} and their ids: some several times, others "
            "never"
        )


def _first_arrivals(keys: list[str], size: int, seed: int) -> npt.NDArray[np.int64]:
    """How many of the first `size` arrivals each key has, when all arrive at random times at the same rate.

    The arrivals of independent Poisson processes of one rate, taken together, are independent draws of their owners.
    So this is a draw with replacement in which each key's random numbers are its own.
    """
    latest, waiting = np.zeros(len(keys)), np.arange(len(keys))
    times, owners = np.empty(0), np.empty(0, np.int64)
    number = 0
    while len(waiting):
        uniform = (draws([keys[place] for place in waiting], seed, number) + 0.5) / 2.0**64
        latest[waiting] -= np.log(uniform)
        times, owners = np.append(times, latest[waiting]), np.append(owners, waiting)
        if len(times) >= size:
            first = np.argsort(times, kind="stable")[:size]
            times, owners = times[first], owners[first]
            waiting = waiting[latest[waiting] < times[-1]]
        number += 1
    return np.bincount(owners, minlength=len(keys))

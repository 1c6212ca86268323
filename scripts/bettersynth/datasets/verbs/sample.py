"""Keep a random part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from bettersynth.configuration.section import Name, Section, Seed
from bettersynth.configuration.verb import Parents, RowCount, Verb
from bettersynth.configuration.wording import size
from bettersynth.datasets.ledger import Outcome, Reasons, split
from bettersynth.datasets.order import random_order, size_of

if TYPE_CHECKING:
    from bettersynth.configuration.types import Configuration
    from bettersynth.datasets.step import Step


class Sample(Verb, Section):
    """A random part, chosen by seed and record id: the same rows whatever their order."""

    is_random: ClassVar[bool] = True

    rows: int | None = Field(None, ge=1)
    fraction: float | None = Field(None, gt=0, le=1)
    like: Name | None = Field(
        None, description="As many ids as this dataset has when it is made, repeated as often as they are there."
    )
    seed: Seed = 0

    @model_validator(mode="after")
    def _one_size(self) -> Sample:
        if sum(size is not None for size in (self.rows, self.fraction, self.like)) != 1:
            raise ValueError("give one of `rows`, `fraction` and `like`")
        return self

    def others(self) -> list[str]:
        """The dataset that it is to be as large as."""
        return [] if self.like is None else [self.like]

    def apart_from_parents(self) -> Any:
        """How many, and what decides."""
        return self.model_dump(mode="json", exclude_none=True) | {"like": self.like is not None}

    def expected(self, parents: Parents) -> RowCount:
        """As many as are asked for, if there are."""
        if self.like is not None:
            return RowCount(parents.rows[1], is_exact=False)
        return RowCount(size_of(self.rows, self.fraction, parents.rows[0]))

    def apply(self, step: Step) -> Outcome:
        """The first ones in an order that depends on the seed and the ids, not on the rows' order."""
        if self.like is not None:
            return self._like(step.rows, step.others[self.like])
        reasons = Reasons(step.rows.num_rows)
        end = size_of(self.rows, self.fraction, step.rows.num_rows)
        reasons.drop(random_order(step.rows, self.seed)[end:], "not sampled")
        return split(step.rows, reasons)

    def _like(self, rows: pa.Table, other: pa.Table) -> Outcome:
        """As many ids as `other` has, the whole set again as often as there.

        With fewer ids than that, all of them, so often that there are as many rows.
        """
        ids = np.flatnonzero(~rows["id"].to_pandas().duplicated())
        order = ids[random_order(rows.take(pa.array(ids)), self.seed)]
        copies = np.sort(pc.value_counts(other["id"].combine_chunks()).field("counts").to_numpy())[::-1]
        counts = np.zeros(rows.num_rows, np.int64)
        np.add.at(counts, order[np.arange(len(copies)) % len(order)], copies)
        reasons = Reasons(rows.num_rows)
        reasons.drop(counts == 0, "not sampled")
        rounds = [np.flatnonzero(counts > number) for number in range(counts.max(initial=0))]
        drawn = rows.take(pa.array(np.concatenate([np.empty(0, np.int64), *rounds])))
        return split(rows, reasons)._replace(rows=drawn, added=int(np.maximum(counts - 1, 0).sum()))

    def brief(self) -> str:
        """How many."""
        return f"sample {self._size}"

    def sentence(self, configuration: Configuration) -> str:
        """How many, and what decides."""
        if self.like is not None:
            return f"draw as many ids as {self.like} has, by seed {self.seed} and the ids, each as often as one there"
        return f"draw {self._size} of the rows by seed {self.seed} and their ids"

    @property
    def _size(self) -> str:
        return size(self.rows, self.fraction) if self.like is None else f"like {self.like}"

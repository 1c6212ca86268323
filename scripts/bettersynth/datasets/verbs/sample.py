"""Keep a random part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from bettersynth.configuration.section import Section, Seed
from bettersynth.configuration.verb import Parents, RowCount, Verb
from bettersynth.configuration.wording import size
from bettersynth.datasets.ledger import Outcome, Reasons, split
from bettersynth.datasets.order import random_order, size_of

if TYPE_CHECKING:
    from bettersynth.configuration.types import Configuration
    from bettersynth.datasets.step import Step


class Sample(Verb, Section):
    """A random part, chosen by seed and record id: the same rows whatever their order."""

    rows: int | None = Field(None, ge=1)
    fraction: float | None = Field(None, gt=0, le=1)
    seed: Seed = 0

    @model_validator(mode="after")
    def _one_size(self) -> Sample:
        if (self.rows is None) == (self.fraction is None):
            raise ValueError("give either `rows` or `fraction`")
        return self

    def expected(self, parents: Parents) -> RowCount:
        """As many as are asked for, if there are."""
        return RowCount(size_of(self.rows, self.fraction, parents.rows[0]))

    def apply(self, step: Step) -> Outcome:
        """The first ones in an order that depends on the seed and the ids, not on the rows' order."""
        reasons = Reasons(step.rows.num_rows)
        end = size_of(self.rows, self.fraction, step.rows.num_rows)
        reasons.drop(random_order(step.rows, self.seed)[end:], "not sampled")
        return split(step.rows, reasons)

    def brief(self) -> str:
        """How many."""
        return f"sample {size(self.rows, self.fraction)}"

    def sentence(self, configuration: Configuration) -> str:
        """How many, and what decides."""
        return f"draw {size(self.rows, self.fraction)} of the rows by seed {self.seed} and their ids"

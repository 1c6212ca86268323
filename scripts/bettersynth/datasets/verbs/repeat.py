"""All rows, several times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import pyarrow as pa
from pydantic import Field

from bettersynth.configuration.section import Value
from bettersynth.configuration.verb import Parents, RowCount, Verb
from bettersynth.datasets.ledger import DROPPED, Outcome

if TYPE_CHECKING:
    from bettersynth.configuration.types import Configuration
    from bettersynth.datasets.step import Step

TIMES = {1: "once", 2: "twice"}


class Repeat(Verb, Value[Annotated[int, Field(ge=1, le=1000)]]):
    """Times every row appears."""

    @property
    def times(self) -> int:
        """So often."""
        return self.root

    def expected(self, parents: Parents) -> RowCount:
        """So many times the parent's."""
        return RowCount(parents.rows[0] * self.root)

    def apply(self, step: Step) -> Outcome:
        """The whole set again after the whole set."""
        count = step.rows.num_rows
        repeated = pa.concat_tables([step.rows] * self.root)
        return Outcome(repeated, DROPPED.empty_table(), count, added=count * (self.root - 1))

    def brief(self) -> str:
        """How many times."""
        return f"× {self.root}"

    def sentence(self, configuration: Configuration) -> str:
        """How many times, in which order."""
        return f"all rows {TIMES.get(self.root, f'{self.root} times')}, the whole set again after the whole set"

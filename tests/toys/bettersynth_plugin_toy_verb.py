"""A verb in one file: every n-th row of the parent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from bettersynth.configuration.section import Value
from bettersynth.configuration.verb import Parents, RowCount, Verb
from bettersynth.datasets.ledger import Outcome, Reasons, split

if TYPE_CHECKING:
    from bettersynth.configuration.types import Configuration
    from bettersynth.datasets.step import Step


class EveryNth(Verb, Value[Annotated[int, Field(ge=2)]]):
    """Keep every n-th row."""

    def expected(self, parents: Parents) -> RowCount:
        return RowCount(-(-parents.rows[0] // self.root))

    def apply(self, step: Step) -> Outcome:
        reasons, places = Reasons(step.rows.num_rows), np.arange(step.rows.num_rows)
        between = places % self.root != 0
        reasons.drop(between, "between every", f"{self.root} rows", places[between])
        return split(step.rows, reasons)

    def brief(self) -> str:
        return f"every {self.root}. row"

    def sentence(self, configuration: Configuration) -> str:
        return f"keep one row of {self.root}, the first among them"

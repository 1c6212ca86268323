"""Add the rows of other datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from bettersynth.configuration.verb import OtherDatasets, Parents, RowCount
from bettersynth.configuration.wording import listed
from bettersynth.datasets.ledger import Outcome, Reasons, split

if TYPE_CHECKING:
    from bettersynth.configuration.types import Configuration
    from bettersynth.datasets.step import Step


class Union(OtherDatasets):
    """Datasets to add; of rows with one id the first stays."""

    takes_rows: ClassVar[bool] = True

    def expected(self, parents: Parents) -> RowCount:
        """All rows together at most."""
        return RowCount(sum(parents.rows), is_exact=False)

    def apply(self, step: Step) -> Outcome:
        """The rows of every parent, one after the other; of rows with one id the first stays."""
        from bettersynth.datasets.dedup import equal

        rows = pa.concat_tables([step.rows, *step.others.values()])
        reasons = Reasons(rows.num_rows)
        reasons.drop(list(equal(rows["id"].to_pylist())), "duplicate id")
        return split(rows, reasons)

    def brief(self) -> str:
        """The datasets."""
        return f"union {', '.join(self.root)}"

    def sentence(self, configuration: Configuration) -> str:
        """The datasets, and what becomes of equal ids."""
        return f"add the rows of {listed(self.root)}; of rows with one id the first stays"

"""Keep what is in other datasets too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bettersynth.configuration.verb import OtherDatasets, Parents, RowCount
from bettersynth.configuration.wording import listed
from bettersynth.datasets.ledger import Outcome, Reasons, split
from bettersynth.datasets.order import contains

if TYPE_CHECKING:
    from bettersynth.configuration.types import Configuration
    from bettersynth.datasets.step import Step


class Intersect(OtherDatasets):
    """Keep rows whose id is in all of these."""

    def expected(self, parents: Parents) -> RowCount:
        """The smallest parent's at most."""
        return RowCount(min(parents.rows), is_exact=False)

    def apply(self, step: Step) -> Outcome:
        """A row goes for the first dataset that it is not in."""
        reasons = Reasons(step.rows.num_rows)
        for name, other in step.others.items():
            reasons.drop(~contains(other, step.rows), "not in", name)
        return split(step.rows, reasons)

    def brief(self) -> str:
        """The datasets."""
        return f"intersect {', '.join(self.root)}"

    def sentence(self, configuration: Configuration) -> str:
        """The datasets."""
        return f"keep the rows whose id is also in {listed(self.root)}"

"""Drop what is in other datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bettersynth.configuration.verb import OtherDatasets
from bettersynth.configuration.wording import listed
from bettersynth.datasets.ledger import Outcome, Reasons, split
from bettersynth.datasets.order import contains

if TYPE_CHECKING:
    from bettersynth.configuration.types import Configuration
    from bettersynth.datasets.step import Step


class Subtract(OtherDatasets):
    """Drop rows whose id is in any of these."""

    def apply(self, step: Step) -> Outcome:
        """A row goes for the first dataset that it is in."""
        reasons = Reasons(step.rows.num_rows)
        for name, other in step.others.items():
            reasons.drop(contains(other, step.rows), "in", name)
        return split(step.rows, reasons)

    def brief(self) -> str:
        """The datasets."""
        return f"subtract {', '.join(self.root)}"

    def sentence(self, configuration: Configuration) -> str:
        """The datasets."""
        return f"drop the rows whose id is in {listed(self.root)}"

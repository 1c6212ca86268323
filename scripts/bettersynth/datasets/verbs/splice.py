"""Put better versions of rows in their places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from bettersynth.configuration.section import Name, Section
from bettersynth.configuration.verb import Parents, RowCount, Verb
from bettersynth.core.records import ROWS
from bettersynth.datasets.ledger import Outcome, Reasons, split
from bettersynth.datasets.order import contains

if TYPE_CHECKING:
    from bettersynth.configuration.types import Configuration
    from bettersynth.datasets.step import Step


class Splice(Verb, Section):
    """Replace rows by those of another dataset with the same id; order and multiplicity stay."""

    kind: ClassVar[Literal["choice", "generator", "splice"]] = "splice"
    takes_rows: ClassVar[bool] = True

    dataset: Name = Field(description="Dataset whose rows go in.")
    unmatched: Literal["keep", "drop"] = Field(
        "keep",
        description="What becomes of a row that was rewritten, but whose new version is not in `dataset`: "
        "the original stays, or it goes.",
    )

    @model_validator(mode="before")
    @classmethod
    def _name(cls, value: Any) -> Any:
        return {"dataset": value} if isinstance(value, str) else value

    def others(self) -> list[str]:
        """The one whose rows go in."""
        return [self.dataset]

    def apart_from_parents(self) -> Any:
        """What becomes of the unmatched."""
        return self.unmatched

    @property
    def reads_asked(self) -> bool:
        """Yes, to tell the unmatched."""
        return True

    @property
    def times(self) -> int | None:
        """Once, unless some may be dropped."""
        return 1 if self.unmatched == "keep" else None

    def expected(self, parents: Parents) -> RowCount:
        """All rows, unless some may be dropped."""
        return RowCount(parents.rows[0], is_exact=self.unmatched == "keep")

    def apply(self, step: Step) -> Outcome:
        """Give each row the source that the other dataset has for its id.

        What was rewritten on the way to `from` already is no candidate of this splice.
        """
        rows, other, asked = step.rows, step.others[self.dataset], step.asked()
        place = pc.index_in(rows["id"], value_set=other["id"])
        source = pc.coalesce(other["source"].take(place), rows["source"])
        rewritten = [contains(rewritten, rows) for rewritten in asked]
        unmatched = np.logical_or.reduce(rewritten or [np.zeros(rows.num_rows, bool)]) & place.is_null().to_numpy()
        reasons = Reasons(rows.num_rows)
        if self.unmatched == "drop":
            reasons.drop(unmatched, "rewritten, not in", self.dataset)
        outcome = split(rows, reasons, result=pa.table([rows["id"], source], ROWS))
        return outcome._replace(unmatched=int(unmatched.sum()))

    def brief(self) -> str:
        """Which dataset, and what becomes of the unmatched."""
        return f"splice in {self.dataset}" + (", drop failures" if self.unmatched == "drop" else "")

    def sentence(self, configuration: Configuration) -> str:
        """Which dataset, and what becomes of the unmatched."""
        rest = "stays as it was" if self.unmatched == "keep" else "is dropped"
        return (
            f"where {self.dataset} has a row of the same id, its version takes the row's place; a row that was "
            f"rewritten and is not in {self.dataset} {rest}"
        )

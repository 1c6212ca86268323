"""Keep the best by a score, or by a weighted sum of scores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from bettersynth.configuration.checks import is_word, kinds, score_problems
from bettersynth.configuration.section import Section
from bettersynth.configuration.verb import Parents, RowCount, Verb
from bettersynth.configuration.wording import size
from bettersynth.core.names import StatKey
from bettersynth.datasets.ledger import Outcome, Reasons, split
from bettersynth.datasets.order import size_of, sorted_places
from bettersynth.datasets.values import Values

if TYPE_CHECKING:
    from bettersynth.configuration.types import Configuration
    from bettersynth.datasets.step import Step


class Rank(Verb, Section):
    """Order rows by a score and keep a run of the best."""

    by: dict[str, float] = Field(min_length=1, description="Operators and their weights; a single name means weight 1.")
    top: int | None = Field(None, ge=1, description="Rows to keep.")
    fraction: float | None = Field(None, gt=0, le=1, description="Share of the rows to keep, instead of `top`.")
    skip: int = Field(0, ge=0, description="Best rows to leave out first.")
    descending: bool = Field(True, description="Whether the largest score is the best.")
    normalise: Literal["none", "min_max"] = Field(
        "none", description="Scale each score to 0…1 over the parent's rows before the weighted sum."
    )

    @field_validator("by", mode="before")
    @classmethod
    def _single(cls, value: Any) -> Any:
        return {value: 1.0} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_size(self) -> Rank:
        if (self.top is None) == (self.fraction is None):
            raise ValueError("give either `top` or `fraction`")
        return self

    def operators(self, configuration: Configuration) -> list[str]:
        """Those that rows are ordered by."""
        return sorted({StatKey.parse(score).operator for score in self.by})

    def problems(self, key: str, configuration: Configuration) -> Iterator[str]:
        """Scores that there are not, or that are no numbers."""
        for score in self.by:
            yield from score_problems(configuration, f"{key}.{score}", score)
            if "vector" in kinds(configuration, score):
                yield f"{key}.{score}: this score is a vector; only `cluster` reads those"
            if is_word(configuration, score):
                yield f"{key}.{score}: this score is a word; rank by a number"

    def expected(self, parents: Parents) -> RowCount:
        """As many as are asked for, if there are."""
        rows = parents.rows[0]
        return RowCount(max(0, min(size_of(self.top, self.fraction, rows), rows - self.skip)))

    def apply(self, step: Step) -> Outcome:
        """Keep `top` rows (or a `fraction` of all) after the best `skip`; ties go by id, rows without score go."""
        score, reasons = np.zeros(step.rows.num_rows), Reasons(step.rows.num_rows)
        for key, weight in self.by.items():
            part = mean_per_row(step.values(StatKey.parse(key)), reasons)
            score += weight * (min_max(part) if self.normalise == "min_max" else part)
        ranked = np.flatnonzero(reasons.stays)
        direction = "descending" if self.descending else "ascending"
        order = ranked[sorted_places(step.rows.take(pa.array(ranked)), score[ranked], direction)]
        end = self.skip + size_of(self.top, self.fraction, step.rows.num_rows)
        for places, why in ((order[: self.skip], "rank: skipped best"), (order[end:], "rank: below the cut")):
            reasons.drop(places, why, value=score[places])
        return split(step.rows, reasons)

    def brief(self) -> str:
        """How many, and by what."""
        skipped = f" after {self.skip:,}" if self.skip else ""
        best = "best" if self.descending else "lowest"
        return f"{best} {size(self.top, self.fraction)}{skipped} by {self._weighted()}"

    def sentence(self, configuration: Configuration) -> str:
        """How many, by what, and in which order."""
        scaled = ", each scaled to 0…1," if self.normalise == "min_max" else ""
        skipped = f"leave out the first {self.skip:,} and " if self.skip else ""
        first = "largest" if self.descending else "smallest"
        kept = size(self.top, self.fraction)
        return f"order by {self._weighted()}{scaled} the {first} first, {skipped}keep {kept}"

    def _weighted(self) -> str:
        """What it orders by: `similarity + 0.5·matching`."""
        return " + ".join(score if weight == 1 else f"{weight:g}·{score}" for score, weight in self.by.items())


def min_max(score: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scaled to 0…1 over the rows that have a score; all 0 when they are equal."""
    if np.isnan(score).all():
        return score
    low, high = np.nanmin(score), np.nanmax(score)
    return (score - low) / (high - low) if high > low else score - low


def mean_per_row(values: Values, reasons: Reasons) -> npt.NDArray[np.float64]:
    """The mean of each row's values; a row that has none is dropped."""
    if not values.numeric:
        raise ValueError(f"`{values.label}` is a word and cannot be ranked by")
    row = np.repeat(np.arange(len(values.counts)), values.counts)
    sums = np.bincount(row, weights=values.flat, minlength=len(values.counts))
    means = np.divide(sums, values.counts, out=np.full(len(sums), np.nan), where=values.counts > 0)
    reasons.drop(values.counts == 0, values.label, "no value")
    reasons.drop(np.isnan(means), values.label, "not a number")
    return means

"""The keep rule of a score."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from bettersynth.configuration.section import Section


class Threshold(Section):
    """Data-Juicer's keep rule: a closed interval over the values of one record."""

    min: float | None = Field(None, allow_inf_nan=False, description="Smallest value kept.")
    max: float | None = Field(None, allow_inf_nan=False, description="Largest value kept.")
    one_of: list[str] | None = Field(None, description="Values kept of a score that is a word (language id).")
    any_or_all: Literal["any", "all"] = Field(
        "any", description="Whether one value inside is enough or every value must be."
    )

    @model_validator(mode="after")
    def _possible(self) -> Threshold:
        if self.min is None and self.max is None and not self.one_of:
            raise ValueError("a threshold needs `min`, `max` or `one_of`")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: nothing could be kept")
        return self

    def brief(self) -> str:
        """The interval as people write it: `≥ 0.5`, `0.01 … 0.28`, `in en, fr`."""
        if self.one_of:
            return f"in {', '.join(self.one_of)}"
        if self.max is None:
            return f"≥ {self.min:g}"
        if self.min is None:
            return f"≤ {self.max:g}"
        return f"{self.min:g} … {self.max:g}"

    def sentence(self) -> str:
        """The interval in a sentence: `from 0.01 to 0.28 for every value`."""
        inside = self.brief() if self.min is None or self.max is None else f"from {self.min:g} to {self.max:g}"
        return inside + " for every value" * (self.any_or_all == "all")

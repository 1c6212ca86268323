"""Rungs of stage 1 at which losses are looked at, and the worst seeds may stop."""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from bettersynth.configuration.section import Section

END = "end"
PROBE_STEPS = 50


class Rung(Section):
    """A step of stage 1 at which losses are looked at, and the worst seeds may stop."""

    steps: Annotated[int, Field(ge=1)] | Literal["end"] = Field(description="Optimiser steps of stage 1, or its `end`.")
    keep: int | None = Field(
        None, ge=1, description="Seeds that go on, by lowest loss. Not given: all do, and the loss is measured only."
    )


class Pick(NamedTuple):
    """A rung at which seeds are picked."""

    number: int
    """From 1."""
    steps: int | None
    """None for the end of stage 1."""
    keep: int

    @property
    def folder(self) -> str:
        """The folder of what leads there, in that of a run: of a probe, or of stage 1."""
        return "pretrain" if self.steps is None else "probe" + self._suffix

    @property
    def choice(self) -> str:
        """Name of the file that says which seeds go on, without its ending."""
        return "seeds" + self._suffix

    @property
    def words(self) -> str:
        """When it is."""
        return "at the end of stage 1" if self.steps is None else f"after {self.steps} steps"

    @property
    def _suffix(self) -> str:
        return "" if self.number == 1 else f"-{self.number}"


class Probe(Section):
    """Looks at a run's losses during stage 1, to see which seeds align."""

    steps: int | None = Field(
        None,
        ge=1,
        description=f"Steps of the only rung, where `rungs` is not given; {PROBE_STEPS} if neither is.",
    )
    keep: int | None = Field(
        None,
        ge=1,
        description="Seeds that go on from the only rung, by lowest loss; the others stay on record as stopped. "
        "Not given: every seed goes on.",
    )
    rungs: list[Rung] | None = Field(
        None,
        min_length=1,
        description="Several: such as four seeds after 50 steps, and of these one at the end of stage 1, "
        "`[{steps: 50, keep: 4}, {steps: end, keep: 1}]`. A seed that goes on continues where it stopped.",
    )

    @model_validator(mode="after")
    def _one_form(self) -> Probe:
        if self.rungs and (self.steps or self.keep):
            raise ValueError("give `rungs`, or `steps` and `keep`; set to null what another section gave")
        return self

    @field_validator("rungs")
    @classmethod
    def _upwards(cls, rungs: list[Rung] | None) -> list[Rung] | None:
        steps = [math.inf if rung.steps == END else rung.steps for rung in rungs or ()]
        kept = [rung.keep for rung in rungs or () if rung.keep is not None]
        if sorted(set(steps)) != steps:
            raise ValueError("each rung has more steps than the one before, and `end` is the last")
        if sorted(kept, reverse=True) != kept:
            raise ValueError("a rung keeps no more seeds than the one before")
        return rungs

    @property
    def _all(self) -> list[Rung]:
        return self.rungs or [Rung(steps=self.steps or PROBE_STEPS, keep=self.keep)]

    @property
    def measured(self) -> list[int]:
        """Steps at which losses are looked at, beside the end."""
        return [rung.steps for rung in self._all if isinstance(rung.steps, int)]

    @property
    def picks(self) -> list[Pick]:
        """Rungs at which seeds are picked, in order."""
        picking = [(rung.steps, rung.keep) for rung in self._all if rung.keep is not None]
        return [
            Pick(number, steps if isinstance(steps, int) else None, keep)
            for number, (steps, keep) in enumerate(picking, 1)
        ]

    @property
    def probes(self) -> list[Pick]:
        """Those before the end, which are jobs of their own."""
        return [pick for pick in self.picks if pick.steps is not None]

"""What stage 2 and the benchmarks read is looked at before stage 1 is paid for.

It is looked at once: Snakemake looks at no other reason to run a job that comes after one that runs, so what stage 1
waits for must not run again because a file of stage 2 or of a benchmark changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bettersynth.configuration.instructions import instruction_sets
from bettersynth.core import versions
from bettersynth.workflow.expected import Rows, counted
from bettersynth.workflow.jobs.specification import Ask, Files, Fingerprinted, ImagesOfInstructions, Kind, Read, Rule

CONTEST_INSTRUCTIONS = 240_000
"""Instructions of the contest's fixed set, for when it is not here."""


class OfInstructions(Rule):
    """A rule about an instruction set."""

    wildcards = ("instructions",)
    kind = Kind.CPU

    def every(self) -> Iterator[tuple[str, ...]]:
        return ((name,) for name in instruction_sets(self.configuration))

    def file(self, instructions: str) -> Fingerprinted:
        """The file of the set."""
        return Fingerprinted(instruction_sets(self.configuration)[instructions].instructions)

    def also_reads(self, instructions: str) -> Iterator[Read]:
        yield ImagesOfInstructions(instruction_sets(self.configuration)[instructions])


class Preflight(OfInstructions):
    """Look at every row and picture of an instruction set; stage 1 waits for it."""

    name = "preflight"
    asks = Ask(8, 8_000, 120)
    log_name = "preflight/{instructions}"
    says = "Look at the rows and pictures of {instructions}"
    title = "{instructions}"
    group = "checks"

    phase = "dataset"
    unit = "rows"

    def inputs(self, instructions: str) -> dict[str, Files]:
        return {"instructions": self.file(instructions)}

    def outputs(self, instructions: str) -> dict[str, Files]:
        return {"looked_at": self.layout.preflight(instructions)}

    def amount(self, instructions: str) -> Rows:
        return counted(self.file(instructions), b'"conversations"', CONTEST_INSTRUCTIONS)

    def work_kind(self, instructions: str) -> str:
        return self.name


class Instructions(OfInstructions):
    """State what of an instruction set is used; stage 2 waits for it."""

    name = "instructions"
    asks = Ask(8, 8_000, 120)
    log_name = "instructions/{instructions}"
    says = "State what is used of {instructions}"

    def inputs(self, instructions: str) -> dict[str, Files]:
        looked_at = Fingerprinted(self.layout.preflight(instructions))
        return {"instructions": self.file(instructions), "looked_at": [looked_at]}

    def outputs(self, instructions: str) -> dict[str, Files]:
        return {"used": self.layout.used_instructions(instructions)}

    def companions(self, output: Path, instructions: str) -> Iterator[Read]:
        """The rows that are used, and their card."""
        yield from (self.layout.instructions(instructions), self.layout.instructions_card(instructions))

    def parameters(self, instructions: str) -> dict[str, Any]:
        """What decides what is used of a set, apart from its pictures; settings are in its name."""
        contents = self.fingerprints.contents(self.file(instructions))
        return {"instructions": contents, "version": versions.INSTRUCTIONS}


class Questions(Rule):
    """Look at a benchmark's questions, annotations and pictures; stage 1 waits for it."""

    name = "questions"
    asks = Ask(4, 8_000, 60)
    wildcards = ("benchmark",)
    kind = Kind.CPU
    log_name = "questions/{benchmark}"
    says = "Look at the questions and pictures of {benchmark}"
    title = "{benchmark}"
    group = "checks"

    def every(self) -> Iterator[tuple[str, ...]]:
        return ((benchmark,) for benchmark in (self.configuration.benchmarks if self.configuration.recipes else ()))

    def inputs(self, benchmark: str) -> dict[str, Files]:
        return {"questions": [Fingerprinted(file) for file in self.configuration.benchmarks[benchmark].files]}

    def outputs(self, benchmark: str) -> dict[str, Files]:
        return {"card": self.layout.questions_card(benchmark)}

    def also_reads(self, benchmark: str) -> Iterator[Read]:
        yield from self.configuration.benchmarks[benchmark].pictures()

"""Answers first, scores after: predictions are kept for every question."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bettersynth.core import versions
from bettersynth.core.layout import BENCHMARKS
from bettersynth.workflow.expected import Rows, counted
from bettersynth.workflow.jobs.specification import Files, Fingerprinted, Kind
from bettersynth.workflow.jobs.train import OfSeed

CONTEST_QUESTIONS = {"textvqa": 5_000, "mmbench": 4_377}
"""Questions of the contest's benchmarks, for when their files are not here."""


class OfBenchmark(OfSeed):
    """A rule that makes something of each seed of a recipe for each benchmark."""

    wildcards = ("recipe", "seed", "benchmark")
    title = "{recipe}, seed {seed}, {benchmark}"

    def every(self) -> Iterator[tuple[str, ...]]:
        return ((*run, benchmark) for run in super().every() for benchmark in BENCHMARKS)

    def questions(self, benchmark: str) -> list[Fingerprinted]:
        """Question and annotation files."""
        return [Fingerprinted(path) for path in self.files(benchmark)]

    def files(self, benchmark: str) -> list[str]:
        """Question and annotation files."""
        section = self.section(benchmark)
        return [section.questions, *([section.annotations] if benchmark == "textvqa" else [])]

    def section(self, benchmark: str) -> Any:
        """The benchmark's part of the configuration."""
        return getattr(self.configuration.evaluation, benchmark)


class Answer(OfBenchmark):
    """Answer the questions of a benchmark with a trained model."""

    name = heading = "answer"
    phase = "evaluate"
    unit = "questions"
    kind = Kind.GPU
    log_name = "answer/{recipe}/{seed}.{benchmark}"
    says = "Ask {recipe}, seed {seed}, the questions of {benchmark}"

    def inputs(self, recipe: str, seed: str, benchmark: str) -> dict[str, Files]:
        return {"model": self.layout.finetune(recipe, seed) / "card.json", "questions": self.questions(benchmark)}

    def outputs(self, recipe: str, seed: str, benchmark: str) -> dict[str, Files]:
        return {"card": self.layout.answers_card(recipe, seed, benchmark)}

    def parameters(self, recipe: str, seed: str, benchmark: str) -> dict[str, Any]:
        """What decides the answers to a benchmark, apart from the model."""
        section = self.section(benchmark)
        return {
            "questions": self.fingerprints.contents(section.questions),
            "max_new_tokens": section.max_new_tokens,
            "precision": self.configuration.evaluation.precision,  # type: ignore[union-attr]
            "version": versions.ANSWER,
            **self.fingerprints.reading,
        }

    def amount(self, recipe: str, seed: str, benchmark: str) -> Rows:
        return counted(self.section(benchmark).questions, b"\n", CONTEST_QUESTIONS[benchmark])

    def what(self, recipe: str, seed: str, benchmark: str) -> str:
        return f"answer: {benchmark}"

    def work_kind(self, recipe: str, seed: str, benchmark: str) -> str:
        return f"answer {benchmark}"


class ScoreAnswers(OfBenchmark):
    """Score the answers to a benchmark."""

    name = "score_answers"
    log_name = "score_answers/{recipe}/{seed}.{benchmark}"
    says = "Score {recipe}, seed {seed}, on {benchmark}"

    def inputs(self, recipe: str, seed: str, benchmark: str) -> dict[str, Files]:
        return {"answers": self.layout.answers_card(recipe, seed, benchmark), "questions": self.questions(benchmark)}

    def outputs(self, recipe: str, seed: str, benchmark: str) -> dict[str, Files]:
        return {"result": self.layout.result(recipe, seed, benchmark)}

    def parameters(self, recipe: str, seed: str, benchmark: str) -> dict[str, Any]:
        """What decides the scores, apart from the answers."""
        files = self.fingerprints.contents(*self.files(benchmark))
        return {"files": files, "version": versions.SCORE_ANSWERS}

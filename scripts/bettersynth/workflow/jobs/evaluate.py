"""Answers first, scores after: predictions are kept for every question."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from bettersynth.configuration.benchmark import Benchmark
from bettersynth.core import versions
from bettersynth.core.digests import files_below
from bettersynth.core.layout import CARD
from bettersynth.workflow.expected import Basis, Rows
from bettersynth.workflow.jobs.specification import Ask, Evidence, Files, Fingerprinted, Kind, Read, Work
from bettersynth.workflow.jobs.train import OfSeed


class Answer(OfSeed):
    """Answer the questions of the benchmarks with a trained model, which one job loads once."""

    name = heading = "answer"
    asks = Ask(4, 24_000, 240)
    phase = "evaluate"
    unit = "questions"
    kind = Kind.GPU
    imports = ("bettersynth.training.mgm.generation",)
    log_name = "answer/{recipe}/{seed}"
    says = "Ask {recipe}, seed {seed}, the benchmarks' questions"

    def inputs(self, recipe: str, seed: str) -> dict[str, Files]:
        questions = [Fingerprinted(benchmark.questions) for benchmark in self.configuration.benchmarks.values()]
        return {"model": self.layout.finetune(recipe, seed) / "card.json", "questions": questions}

    def outputs(self, recipe: str, seed: str) -> dict[str, Files]:
        return {"cards": self._cards(recipe, seed)}

    def result(self, **wildcards: Any) -> Path:
        """A card that is missing yet, or the last."""
        *_, last = cards = self._cards(**wildcards)
        return next((card for card in cards if not card.exists()), last)

    def also_reads(self, recipe: str, seed: str) -> Iterator[Read]:
        for benchmark in self.configuration.benchmarks.values():
            yield from benchmark.pictures()

    def companions(self, output: Path, recipe: str, seed: str) -> Iterator[Read]:
        """The answers, and what the next job knows them by; not their scores."""
        scores = self.layout.result(recipe, seed, output.parent.name)
        yield from (path for path in files_below(output.parent).values() if path not in (output, scores))

    def parameters(self, recipe: str, seed: str) -> dict[str, Any]:
        """What decides the answers to each benchmark, apart from the model."""
        return {
            name: {
                "questions": self.fingerprints.contents(benchmark.questions),
                "max_new_tokens": benchmark.max_new_tokens,
                "precision": self.configuration.evaluation.precision,  # type: ignore[union-attr]
                "version": versions.ANSWER + benchmark.prompt_version,
                **self.fingerprints.reading,
            }
            for name, benchmark in sorted(self.configuration.benchmarks.items())
        }

    def work(self, recipe: str, seed: str) -> list[Work]:
        """The questions of each benchmark."""
        return [
            Work(self.phase, f"answer: {name}", f"answer {name}", _questions(benchmark), self.unit)
            for name, benchmark in self.configuration.benchmarks.items()
        ]

    def evidence(self, recipe: str, seed: str) -> Iterator[Evidence]:
        """Each benchmark's card."""
        for name in self.configuration.benchmarks:
            files = [self.layout.answers(recipe, seed, name)]
            card = self.layout.answers_card(recipe, seed, name)
            yield Evidence(f"answer {name}", self.heading, card, files)

    def _cards(self, recipe: str, seed: str) -> list[Path]:
        return [self.layout.answers_card(recipe, seed, benchmark) for benchmark in self.configuration.benchmarks]


class ScoreAnswers(OfSeed):
    """Score the answers to a benchmark."""

    name = "score_answers"
    wildcards = ("recipe", "seed", "benchmark")
    title = "{recipe}, seed {seed}, {benchmark}"
    log_name = "score_answers/{recipe}/{seed}.{benchmark}"
    says = "Score {recipe}, seed {seed}, on {benchmark}"

    def every(self) -> Iterator[tuple[str, ...]]:
        return ((*run, benchmark) for run in super().every() for benchmark in self.configuration.benchmarks)

    def inputs(self, recipe: str, seed: str, benchmark: str) -> dict[str, Files]:
        files = [Fingerprinted(file) for file in self.configuration.benchmarks[benchmark].files]
        return {"answers": self.layout.answers_card(recipe, seed, benchmark), "questions": files}

    def outputs(self, recipe: str, seed: str, benchmark: str) -> dict[str, Files]:
        return {"result": self.layout.result(recipe, seed, benchmark)}

    def also_reads(self, recipe: str, seed: str, benchmark: str) -> Iterator[Read]:
        """Cards of both stages: the model's card tells of them."""
        yield from (folder(recipe, seed) / CARD for folder in (self.layout.pretrain, self.layout.finetune))

    def parameters(self, recipe: str, seed: str, benchmark: str) -> dict[str, Any]:
        """What decides the scores, apart from the answers."""
        scored = self.configuration.benchmarks[benchmark]
        return {"files": self.fingerprints.contents(*scored.files), "version": scored.marks_version}


@cache
def _questions(benchmark: Benchmark) -> Rows:
    """How many there are; of a benchmark whose file is not here, so many as were published."""
    there = benchmark.amount()
    return Rows(there, Basis.COUNTED) if there else Rows(benchmark.published_questions, Basis.PUBLISHED)

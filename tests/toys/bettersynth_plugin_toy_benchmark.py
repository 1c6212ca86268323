"""A benchmark in one file: is the word on the sign? A JSON list of `id`, `picture`, `word` and `answer`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from bettersynth.configuration.benchmark import Asked, Benchmark, Question
from bettersynth.core.publish import read_json
from bettersynth.evaluation.answers import read_answers, require_all_answered


class Signs(Benchmark):
    """Signs: yes or no."""

    name: ClassVar[str] = "toy_signs"
    title: ClassVar[str] = "Toy signs"
    published_questions: ClassVar[int] = 100
    marks: ClassVar[dict[str, str]] = {"accuracy": "Right", "answered": "Yes or no at all"}
    marks_meaning: ClassVar[tuple[str, str]] = ("how many answers are one", "At all: right or wrong.")

    images: str = Field(description="Folder of the images.")
    max_new_tokens: int = Field(1, ge=1)

    def rows(self) -> list[dict[str, Any]]:
        return read_json(self.questions)

    def ask(self, row: dict[str, Any]) -> Asked:
        question = Question(row["id"], f"is the word {row['word']} ?", Path(self.images, row["picture"]))
        return Asked(question, {"question_id": row["id"]})

    def pictures(self) -> Iterator[Path]:
        return (Path(self.images, row["picture"]) for row in self.rows())

    def amount(self) -> int:
        return len(self.rows()) if Path(self.questions).exists() else 0

    def score(self, answers: Path) -> dict[str, Any]:
        right = {row["id"]: row["answer"] for row in read_json(self.questions)}
        given = {line["question_id"]: line["text"].lower() for line in read_answers(answers)}
        require_all_answered(answers, list(right), list(given))
        scores = [{"id": key, "score": float(given[key] == right[key])} for key in right]
        return {
            "questions": len(right),
            "accuracy": sum(row["score"] for row in scores) / len(right),
            "answered": sum(text in ("yes", "no") for text in given.values()) / len(right),
            "per_question": scores,
        }

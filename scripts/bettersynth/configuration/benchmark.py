"""What a benchmark is: everything that is known of one stands in a subclass of `Benchmark`, in one module.

The module lies in `bettersynth/evaluation/benchmarks`, or is a plugin. The graph imports it: what is heavy is imported
inside methods. The subclass's fields are the keys of `evaluation.<name>` in the configuration.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

from bettersynth.configuration.section import Section
from bettersynth.core.errors import PersonError


class Question(NamedTuple):
    """A prompt, as the user's turn has it after `<image>`, and its picture: Pillow's, a file, its bytes, or None."""

    id: Any
    prompt: str
    image: Any


class Asked(NamedTuple):
    """A question, and what the line of its answer begins with; `text` and `model_id` follow."""

    question: Question
    line: dict[str, Any]


class CellError(ValueError):
    """What stands under a key of a row is not what has to."""

    def __init__(self, key: str, detail: str) -> None:
        super().__init__(key, detail)
        self.key, self.detail = key, detail

    def __str__(self) -> str:
        return f"{self.key}: {self.detail}"


class Fault(NamedTuple):
    """Why a row cannot be scored: its number (from 1), the key in it, and what is wrong."""

    row: int
    key: str
    detail: str


class Benchmark(Section):
    """What every benchmark has."""

    name: ClassVar[str]
    """Its key in the configuration; also of files, results and the leaderboard."""
    title: ClassVar[str]
    """What people call it."""
    published_questions: ClassVar[int]
    """How many it has as published, for estimates while its file is not here."""
    prompt_version: ClassVar[int] = 0
    """Raised with a change of `rows` or `ask`: models are asked again."""
    marks_version: ClassVar[int] = 1
    """Raised with a change of `score`: answers are scored again."""
    marks: ClassVar[dict[str, str]] = {}
    """Marks of a result that the report shows beside the accuracy, in 0…1: key and heading. Parts are of the first."""
    marks_meaning: ClassVar[tuple[str, str]] = ("", "")
    """What `marks` and `parts` are: in a few words, and in a sentence or two."""

    questions: str = Field(description="File of the questions.")
    max_new_tokens: int = Field(ge=1, description="Tokens after which an answer is cut.")

    @property
    def files(self) -> list[str]:
        """The files that a score is made from, that of the questions first; pictures are apart."""
        return [self.questions]

    def pictures(self) -> Iterator[Path]:
        """Files of the questions' pictures, below the folder that the configuration names; none if inside `files`."""
        return iter(())

    def amount(self) -> int:
        """How many questions there are, 0 if their file is not here; quick, for estimates."""
        path = Path(self.questions)
        if not path.exists():
            return 0
        with path.open("rb") as file:
            return sum(1 for _ in file)

    @abstractmethod
    def rows(self) -> Iterable[Any]:
        """The rows of the file of questions, in its order; each is a question."""

    @abstractmethod
    def ask(self, row: Any) -> Asked:
        """The question of a row; two may have one id. Raises KeyError, ValueError or ImageProblem if it is none."""

    def asked(self) -> Iterator[Asked]:
        """All questions, in order."""
        return map(self.ask, self.rows())

    def faults(self, rows: list[Any]) -> Iterator[Fault]:
        """What `score` would stumble over in rows that can be asked; looked at before any model is trained."""
        return iter(())

    def remarks(self, rows: list[Any]) -> dict[str, int]:
        """What is unusual in rows that can be asked and scored: words for it, and of how many rows they are true."""
        return {}

    def upload(self, answers: Path, target: Path) -> None:
        """Write answers as the benchmark's own server takes them. Raises PersonError where it has none."""
        raise PersonError(f"{self.title} has no server that takes answers")

    @abstractmethod
    def score(self, answers: Path) -> dict[str, Any]:
        """Score an answer file: `questions` (their number), `accuracy` in 0…1, and `per_question`, in an order.

        `per_question` is a list of `{"id", "score"}`, with a `group` where questions belong together, as those of one
        picture do; the accuracy is the mean of the scores. Comparisons of recipes count the choice of groups. Further
        marks may follow. Raises `AnswersError` unless each question is answered once.
        """

    def parts(self, result: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Parts of the questions that the report tells apart: by name, their number (`questions`) and their marks."""
        return {}

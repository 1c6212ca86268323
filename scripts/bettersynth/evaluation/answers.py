"""Answer files: one JSON line for each question, all of them, none twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

from bettersynth.core.remedy import again


class AnswersError(ValueError):
    """An answer file does not answer exactly the questions asked."""


def read_answers(path: str | Path) -> list[dict[str, Any]]:
    """The lines of an `answers.jsonl`, in order.

    Raises `AnswersError` for a line that is no JSON object, such as one cut short by a full disk.
    """
    answers = []
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                answer = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise AnswersError(f"{path}, line {number}: not JSON ({error}).{_again(path)}") from error
            if not isinstance(answer, dict):
                raise AnswersError(f"{path}, line {number}: not a JSON object.{_again(path)}")
            answers.append(answer)
    return answers


def require_all_answered(path: str | Path, asked: Iterable[Hashable], answered: Iterable[Hashable]) -> None:
    """Refuse an answer file unless its keys are those of the questions, each as often as asked.

    Raises `AnswersError` with the counts of missing, unknown and duplicate answers and the first of each.
    """
    expected, found = Counter(asked), Counter(answered)
    missing = list((expected - found).elements())
    surplus = found - expected
    unknown = [key for key in surplus.elements() if key not in expected]
    duplicate = [key for key in surplus.elements() if key in expected]
    faults = [
        f"{len(keys):,} {kind} (first: {', '.join(map(_show, keys[:3]))})"
        for kind, keys in (("missing", missing), ("unknown", unknown), ("duplicate", duplicate))
        if keys
    ]
    if faults:
        raise AnswersError(
            f"{path}: {found.total():,} answers to {expected.total():,} questions: {'; '.join(faults)}. "
            f"A partial answer file is not scored.{_again(path)}"
        )


def _show(key: Hashable) -> str:
    return " / ".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _again(path: str | Path) -> str:
    return f" Answer again: {again(path, Path(path).with_name('card.json'))}"

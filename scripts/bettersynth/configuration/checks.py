"""What several checks across sections need: names that are not there, and scores of the wrong kind."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from bettersynth.configuration.operators import find_spec
from bettersynth.core.names import StatKey

if TYPE_CHECKING:
    from bettersynth.configuration.types import Configuration


def did_you_mean(word: str, accepted: Iterable[str]) -> str:
    """`; did you mean …?` with the nearest accepted spelling, or nothing."""
    accepted = list(accepted)
    near = difflib.get_close_matches(word, accepted, n=1) or [part for part in word.split("_") if part in accepted]
    return f"; did you mean `{near[0]}`?" if near else ""


def unknown(key: str, kind: str, name: str, accepted: Iterable[str]) -> str:
    """That there is no such thing under `key`; which there are, and the nearest spelling."""
    accepted = sorted(accepted)
    return (
        f"{key}: there is no {kind} `{name}`; there are: {', '.join(accepted) or 'none'}{did_you_mean(name, accepted)}"
    )


def kinds(configuration: Configuration, score: str) -> set[str]:
    """Kinds of the stats that the key of a score names (`number`, `words`, `vector`, …); none when it is wrong."""
    key = StatKey.parse(score)
    stats = _stats(configuration, key)
    return {kind for stat, kind in stats.items() if key.stat in ("", stat)}


def is_word(configuration: Configuration, score: str) -> bool:
    """Whether the score is a word, or a list of words."""
    return any(kind.startswith("word") for kind in kinds(configuration, score))


def score_problems(configuration: Configuration, key: str, score: str) -> Iterator[str]:
    """Why `score`, under `key`, does not name one stat of one operator."""
    operator, stat = StatKey.parse(score)
    if operator not in configuration.operators:
        yield unknown(key, "operator", operator, configuration.operators)
        return
    op, stats = configuration.operators[operator].op, _stats(configuration, StatKey(operator))
    if stat and stat not in stats:
        yield f"{key}: {op} has no stat `{stat}`; it has: {', '.join(stats)}{did_you_mean(stat, stats)}"
    if not stat and len(stats) > 1:
        choices = ", ".join(f"`{StatKey(operator, choice)}`" for choice in stats)
        yield f"{key}: {op} has several stats; write one of {choices}"


def _stats(configuration: Configuration, key: StatKey) -> dict[str, str]:
    """Stats of the key's operator and their kinds."""
    operator = configuration.operators.get(key.operator)
    spec = find_spec(operator.op) if operator else None
    return dict(spec.stats) if spec else {}

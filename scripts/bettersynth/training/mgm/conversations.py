"""Conversations in LLaVA's form: which can be trained on, which the published program trains on all the same, and how.

The published program is dvlab-research/MGM (commit 769820c, as in the contest's kit): its `preprocess_multimodal` and
`preprocess_gemma`. Torch-free, so that a preflight and the training judge alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bettersynth.core.raw import GEMMA_TOKENS, PLAIN_IMAGE_TOKEN

IMAGE = PLAIN_IMAGE_TOKEN
"""Where the image stands in a text, in LLaVA's form."""

TURN, END_OF_TURN, EOS, PAD = "<start_of_turn>", "<end_of_turn>", "<eos>", "<pad>"
PUBLISHED_REASONS = ("image count", "image in an answer", "empty answer", "control string")
"""Reasons for which a conversation may be refused that the published program trains on."""
ANSWER_BEGINS = f"{TURN}model\n"


class Problem(NamedTuple):
    """What is wrong with a conversation: the key in the row, a fixed reason, and what was found.

    `published`: the published program trains on it.
    """

    key: str
    reason: str
    detail: str
    published: bool = False


class ConversationError(ValueError):
    """A conversation that cannot be trained on."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def problems(conversation: Any, has_image: bool) -> list[Problem]:
    """All that is wrong with a conversation of a row that has an image or none."""
    found = _misshapen(conversation)
    if found:
        return found
    turns = _turns(conversation)
    images = [turn["value"].count(IMAGE) for turn in turns]
    if sum(images) != has_image:
        in_turns = sum(map(bool, images))
        detail = f"{sum(images)} times {IMAGE} in the conversation, but {int(has_image)} image in the record"
        found.append(Problem("conversations", "image count", detail, published=not has_image or in_turns < 2))
    first = len(conversation) - len(turns)
    for number, turn in enumerate(turns, first):
        key, value, is_answer = f"conversations[{number}].value", turn["value"], turn["from"] == "gpt"
        if is_answer and IMAGE in value and has_image:
            found.append(Problem(key, "image in an answer", f"{IMAGE} in an answer", published=True))
        if is_answer and not value.strip():
            detail = "an answer is blank" if value else "an answer is empty"
            found.append(Problem(key, "empty answer", detail, published=True))
        if token := special_token(value):
            detail = f"{token} in a text would be taken for the model's own token"
            found.append(Problem(key, "control string", detail, published=True))
    return found


def special_token(text: str) -> str | None:
    """The first of the model's own tokens that is written out in a text."""
    return next((token for token in GEMMA_TOKENS if token in text), None) if "<" in text else None


def question_problem(question: str) -> Problem | None:
    """Why a question cannot be asked: the prompt puts the image in front, so none may be named in it."""
    token = IMAGE if IMAGE in question else special_token(question)
    detail = f"{token} in a text would be taken for the model's own token"
    return Problem("text", "control string", detail) if token else None


def rounds(conversation: Sequence[dict[str, str]], has_image: bool) -> Iterator[tuple[str, str]]:
    """Questions and answers of a conversation without misshapen turns.

    With an image, `<image>` comes to the front of its turn, once and on a line of its own.
    """
    turns = [_fronted(turn["value"]) if has_image else turn["value"] for turn in _turns(conversation)]
    yield from zip(turns[::2], turns[1::2], strict=True)


def is_masked(conversation: Sequence[dict[str, str]], has_image: bool) -> bool:
    """Whether the published program, losing count of the tokens, learns nothing of a conversation ("mismatch")."""
    return any(
        not answer or any(token in text for token in (EOS, PAD, ANSWER_BEGINS) for text in (question, answer))
        for question, answer in rounds(conversation, has_image)
    )


def _misshapen(conversation: Any) -> list[Problem]:
    """What no program trains on: at most one problem."""
    if not isinstance(conversation, list):
        what = "there is none" if conversation is None else f"found {type(conversation).__name__}"
        return [Problem("conversations", "no conversation", f"{what}; a list of turns belongs there")]
    for number, turn in enumerate(conversation):
        key = f"conversations[{number}]"
        if not isinstance(turn, dict):
            return [Problem(key, "turns", f"found {type(turn).__name__}; a turn has `from` and `value`")]
        if not isinstance(turn.get("value"), str):
            detail = f"a turn's `value` is {type(turn.get('value')).__name__}, not a string"
            return [Problem(f"{key}.value", "no text", detail)]
    turns = _turns(conversation)
    roles = [turn.get("from") for turn in turns]
    if roles != ["human", "gpt"] * (len(turns) // 2) or not turns:
        detail = f"turns must be of human and gpt in alternation, not {roles}"[:300]
        return [Problem("conversations", "turns", detail)]
    return []


def _turns(conversation: Sequence[dict[str, str]]) -> Sequence[dict[str, str]]:
    """The turns from the first question on."""
    first = next((place for place, turn in enumerate(conversation) if turn.get("from") != "gpt"), len(conversation))
    return conversation[first:]


def _fronted(text: str) -> str:
    return f"{IMAGE}\n{text.replace(IMAGE, '').strip()}".strip() if IMAGE in text else text

"""TextVQA accuracy, with the numbers of the evaluator the contest used.

Answers are normalised as by the `EvalAIAnswerProcessor` of MMF and Pythia, quirks included, because the
published scores have them; `docs/files.md` has the formats. The soft accuracy is that of VQA (Antol et al. 2015).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from bettersynth.configuration.benchmark import Asked, Benchmark, Fault, Question
from bettersynth.core.publish import read_json
from bettersynth.evaluation.answers import AnswersError, read_answers, require_all_answered

ANNOTATORS = 10
OCR_PREFIX = "Reference OCR token: "

_DELETED_FIRST = str.maketrans("", "", ",?")
_PUNCTUATION = ';/[]"{}()=+\\_-><@`!'
_PERIOD = re.compile(r"\.(?!\d)")
# The evaluator hands a flag to `re.sub` where the number of replacements belongs: re.UNICODE is 32.
_MOST_PERIODS = 32
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBER_WORDS)}}
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't
    he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've
    mustn't must've needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've
    somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's
    something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't
    what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've
    why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've
    you'd you'd've you'll you're you've 'ow's'at
"""


class TextVQA(Benchmark):
    """TextVQA: read the text in the picture."""

    name: ClassVar[str] = "textvqa"
    title: ClassVar[str] = "TextVQA"
    published_questions: ClassVar[int] = 5_000

    questions: str = Field(description="`llava_textvqa_val_v051_ocr.jsonl`.")
    annotations: str = Field(description="`TextVQA_0.5.1_val.json`.")
    images: str = Field(description="Folder of the images.")
    max_new_tokens: int = Field(128, ge=1)

    @property
    def files(self) -> list[str]:
        """Questions and annotations."""
        return [self.questions, self.annotations]

    def pictures(self) -> Iterator[Path]:
        """One file for each question."""
        return (Path(self.images, row["image"]) for row in self.rows())

    def ask(self, row: dict[str, Any]) -> Asked:
        """The prompt as it stands in the file."""
        from bettersynth.pool.images import resolve

        question = Question(row["question_id"], row["text"], resolve(self.images, row["image"]))
        return Asked(question, {"question_id": row["question_id"], "prompt": row["text"]})

    def rows(self) -> Iterator[dict[str, Any]]:
        """The lines of the file."""
        with Path(self.questions).open(encoding="utf-8") as file:
            yield from map(json.loads, file)

    def faults(self, rows: list[dict[str, Any]]) -> Iterator[Fault]:
        """Prompts that hold no question, and questions without annotations."""
        annotations = _annotations(self.annotations)
        for number, row in enumerate(rows, 1):
            try:
                asked = row["question_id"], question_of(row["text"]).lower()
            except (KeyError, TypeError, AttributeError):
                continue  # no row that can be asked
            except ValueError as error:
                yield Fault(number, "text", str(error))
                continue
            if asked not in annotations:
                detail = f"no annotation of image {asked[0]!r}, question {asked[1]!r} in {self.annotations}"
                yield Fault(number, "question", detail)

    def score(self, answers: Path) -> dict[str, Any]:
        """The soft accuracy."""
        return score_textvqa(self.questions, self.annotations, answers)


def _spelled_without_one_apostrophe() -> dict[str, str]:
    """Each contraction by its spellings in which one apostrophe is left out."""
    table = {
        word[:position] + word[position + 1 :]: word
        for word in _CONTRACTED.split()
        for position, character in enumerate(word)
        if character == "'"
    }
    return table | {"somebody'd": "somebodyd"}  # the wrong way round in the evaluator, too


_CONTRACTIONS = _spelled_without_one_apostrophe()


def normalise(answer: str) -> str:
    """The form in which two answers are compared.

    >>> normalise("The Dark-Knight!"), normalise("it's 5pm"), normalise("None")
    ('dark knight', "it 's 5pm", '0')
    """
    text = answer.lower().translate(_DELETED_FIRST).replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    words = _without_punctuation(text).split()
    words = [_NUMBERS.get(word, word) for word in words]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _without_punctuation(text: str) -> str:
    """A mark that touches a space anywhere in `text` is deleted everywhere; another becomes a space."""
    result = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if beside_space else " ")
    return _PERIOD.sub("", result, count=_MOST_PERIODS)


def answer_scores(annotations: Iterable[str]) -> dict[str, float]:
    """The score of each normalised answer that an annotator gave.

    The mean, over leaving out one annotator, of min(1, equal answers among the others / 3).
    """
    counts = Counter(normalise(answer) for answer in annotations)
    total = counts.total()
    return {
        answer: (count * min(1.0, (count - 1) / 3) + (total - count) * min(1.0, count / 3)) / total
        for answer, count in counts.items()
    }


def question_of(prompt: str) -> str:
    """The question inside a prompt of the kit: its first line.

    A prompt is `question / instruction` or `question / Reference OCR token: … / instruction`.
    Raises `ValueError` for any other shape.
    """
    lines = prompt.split("\n")
    if len(lines) == 2 or (len(lines) == 3 and lines[1].startswith(OCR_PREFIX)):
        return lines[0]
    raise ValueError(f"not a TextVQA prompt (question, optional '{OCR_PREFIX}…', instruction): {prompt!r}")


def score_textvqa(questions_path: str | Path, annotations_path: str | Path, answers_path: str | Path) -> dict[str, Any]:
    """Score an answer file; the content of `result.json`.

    Raises `AnswersError` unless every question is answered exactly once, and `ValueError` for a question
    without its ten annotations.
    """
    questions = [(line["question_id"], line["text"]) for line in read_answers(questions_path)]
    answers = [((line["question_id"], line["prompt"]), line["text"]) for line in read_answers(answers_path)]
    require_all_answered(answers_path, questions, (key for key, _ in answers))

    annotations = _annotations(annotations_path)
    texts: dict[tuple[str, str], list[str]] = {}
    for key, text in answers:
        texts.setdefault(key, []).append(text)
    rows: list[dict[str, Any]] = []
    for image, prompt in questions:
        annotation = annotations.get((image, question_of(prompt).lower()))
        if annotation is None:
            raise ValueError(f"{annotations_path}: no annotation of image {image!r}, question {question_of(prompt)!r}")
        score = answer_scores(annotation["answers"]).get(normalise(texts[image, prompt].pop(0)), 0.0)
        rows.append({"id": str(annotation["question_id"]), "group": image, "score": round(score, 6)})
    if not rows:
        raise AnswersError(f"{questions_path}: holds no question")
    return {
        "benchmark": "textvqa",
        "questions": len(rows),
        "accuracy": sum(row["score"] for row in rows) / len(rows),
        "per_question": rows,
    }


def _annotations(path: str | Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The annotations by image and lower-cased question; of two with one key the last counts, as in the kit."""
    table = {}
    for row in read_json(path)["data"]:
        if len(row["answers"]) != ANNOTATORS:
            raise ValueError(
                f"{path}: question {row['question_id']} has {len(row['answers'])} answers instead of {ANNOTATORS}"
            )
        table[row["image_id"], row["question"].lower()] = row
    return table

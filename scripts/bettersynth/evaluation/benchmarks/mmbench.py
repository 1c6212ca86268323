"""MMBench accuracy under circular evaluation (Liu et al. 2023, arXiv:2307.06281), in three readings.

The benchmark asks every question once for each rotation of its options; a rotation is a row of the table whose
index is the first row's plus a multiple of a million. A question counts when *all* its rows are answered right.

- `circular_exact`: the contest's metric; an answer is right when it *is* the letter.
- `circular_infer`: the letter is looked for in the answer first, as VLMEvalKit does without a judge model: by the
  rule of its `can_infer` at commit e8e78f0 (August 2026).
- `vanilla`: the first row of each question alone, exact.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from bettersynth.configuration.benchmark import Asked, Benchmark, CellError, Fault, Question
from bettersynth.core.publish import publish
from bettersynth.evaluation.answers import read_answers, require_all_answered

ROTATION = 1_000_000
LETTERS = "ABCD"
FURTHER = "EFGHI"
CUT = "options from one on that is empty, `None` or `nan` are not shown, as by the kit, and may hold the answer"
LETTER_ONLY = "Answer with the option's letter from the given choices directly."
METRICS = ("circular_exact", "circular_infer", "vanilla")
UPLOAD_DROPS = ("hint", "category", "source", "comment", "l2-category")
UPLOAD_POSITION = 6

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time in an upload, whenever it is written: the earliest that a zip file can state."""

_SEPARATORS = re.compile(r"[.()\[\],:;!*#{}\s]+")
_LAST_WORDS = 4
_NO_ANSWER = "Z"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_SAID_AT_LENGTH = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)


class MMBench(Benchmark):
    """MMBench: multiple choice under circular evaluation."""

    name: ClassVar[str] = "mmbench"
    title: ClassVar[str] = "MMBench"
    published_questions: ClassVar[int] = 4_377
    marks: ClassVar[dict[str, str]] = dict(zip(METRICS, ("Circular", "Inferred", "Vanilla"), strict=True))
    marks_meaning: ClassVar[tuple[str, str]] = (
        "three readings of circular evaluation, and accuracy by category",
        "Circular: right in every rotation of the options. Inferred: the letter is looked for in the answer. Vanilla: "
        "first rotation only. Categories: circular.",
    )

    marks_version: ClassVar[int] = 2

    questions: str = Field(description="`mmbench_dev_20230712.tsv`, images inside.")
    max_new_tokens: int = Field(1024, ge=1)

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the table; rotations are rows of their own."""
        return _read_table(self.questions, images=True)

    def ask(self, row: dict[str, Any]) -> Asked:
        """Hint, question and lettered options."""
        options = list(_asked_options(row))
        prompt = mmbench_prompt(row["question"], _filled(row.get("hint")), options)
        line = {
            "question_id": row["index"],
            "round_id": 0,
            "prompt": prompt,
            "options": options,
            "option_char": list(LETTERS[: len(options)]),
            "answer_id": hashlib.sha256(f"{row['index']} {prompt}".encode()).hexdigest()[:22],
            "metadata": {},
        }
        return Asked(Question(row["index"], f"{prompt}\n{LETTER_ONLY}", _picture(row["image"])), line)

    def faults(self, rows: list[dict[str, Any]]) -> Iterator[Fault]:
        """Answers that are no letters or not among the options, further options, rotations without their question."""
        there = {row["index"] for row in rows}
        if all(row.get("answer") is None for row in rows):
            yield Fault(1, "answer", "no row has one: a test split, which its own server scores; name the dev split")
            return
        for number, row in enumerate(rows, 1):
            answer, shown = row.get("answer"), len(list(_asked_options(row)))
            if answer not in tuple(LETTERS):
                yield Fault(number, "answer", f"{answer!r} is none of {', '.join(LETTERS)}")
            elif answer not in LETTERS[:shown] and row.get(answer) is None:
                yield Fault(number, "answer", f"{answer}, and the options are {', '.join(LETTERS[:shown]) or 'none'}")
            if more := [letter for letter in FURTHER if row.get(letter) is not None]:
                yield Fault(number, more[0], f"an option beyond {LETTERS[-1]}, which is neither shown nor scored")
            if row["index"] % ROTATION not in there:
                yield Fault(number, "index", f"a rotation, but its question {row['index'] % ROTATION} is not there")

    def remarks(self, rows: list[dict[str, Any]]) -> dict[str, int]:
        """Options that are not shown, as the kit does not show them."""
        cut = sum(any(row.get(letter) for letter in LETTERS[len(list(_asked_options(row))) :]) for row in rows)
        return {CUT: cut} if cut else {}

    def upload(self, answers: Path, target: Path) -> None:
        """The kit's upload: a workbook."""
        write_upload(self.questions, answers, target)

    def score(self, answers: Path) -> dict[str, Any]:
        """Accuracy under circular evaluation, in three readings."""
        for fault in self.faults(_read_table(self.questions)):
            raise ValueError(f"{self.questions}: row {fault.row}, column {fault.key}: {fault.detail}")
        return score_mmbench(self.questions, answers)

    def parts(self, result: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The coarse categories, or where the table has none, the fine ones."""
        by_category: dict[str, dict[str, Any]] = result["by_category"]
        return by_category.get("l2-category") or by_category["category"]


def mmbench_prompt(question: str, hint: str | None, options: list[str]) -> str:
    """Hint, question and lettered options, each on its line."""
    lettered = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([*([] if hint is None else [hint]), question, *lettered])


def _asked_options(row: dict[str, Any]) -> Iterator[str]:
    """The options in order, up to the first that the kit's questions take for empty."""
    for letter in LETTERS:
        option = _filled(row.get(letter))
        if option is None:
            return
        yield option


def _picture(cell: str | None) -> bytes:
    """The bytes of a picture in a table. Raises CellError for anything but base64 in one piece."""
    if cell is None:
        raise CellError("image", "empty")
    if cell.isdecimal() and len(cell) < 16:
        raise CellError("image", f"refers to row {cell}; write that row's picture here")
    if cell.startswith("data:"):
        raise CellError("image", "a `data:` URI; leave out all up to its comma")
    try:
        return base64.b64decode(cell, validate=True)
    except ValueError as error:
        lines = "; it has line breaks or spaces: leave them out" if re.search(r"\s", cell) else ""
        raise CellError("image", f"no base64: {error}{lines}") from error


def _filled(cell: str | None) -> str | None:
    """The cell, or None for what the kit's questions take for an empty one."""
    return None if cell is None or cell.lower() in ("nan", "none") else cell


def infer_choice(answer: str, options: dict[str, str]) -> str | None:
    """The option that an answer in words means, or None when that is not certain.

    `options` maps letters to texts. First the letters: the answer means the only letter that stands alone in it, if
    among its last four words (before, it may be an article); or else the letter that "answer is" is followed by, be it
    of a word. Then the texts: the only option whose text the answer holds, unless the answer is more than twice as long
    as all options together. A refusal means none, and so does a lonely Z.
    """
    if any(refusal in answer for refusal in _REFUSALS):
        return None
    words = [word for word in _SEPARATORS.split(answer) if word]
    letters = [letter for letter in options if letter in words]
    if len(letters) == 1 and words.index(letters[0]) >= len(words) - _LAST_WORDS:
        return letters[0]
    if not letters and _NO_ANSWER in words:
        return None
    if (said := _SAID_AT_LENGTH.search(answer)) and said[1].upper() in options:
        return said[1].upper()
    if len(answer) > 2 * sum(map(len, options.values())):
        return None
    held = [letter for letter, text in options.items() if text.lower() in answer.lower()]
    return held[0] if len(held) == 1 else None


def score_mmbench(tsv_path: str | Path, answers_path: str | Path) -> dict[str, Any]:
    """Score an answer file; the content of `result.json`.

    Raises `AnswersError` unless every row of the table is answered exactly once, and `ValueError` when the
    table repeats an index or holds a rotation without its question.
    """
    rows = _read_table(tsv_path)
    predictions = _predictions(answers_path, rows)
    groups = defaultdict(list)
    for row in rows:
        groups[row["index"] % ROTATION].append(row)
    questions = []
    for number in sorted(groups):
        main = min(groups[number], key=lambda row: row["index"])
        if main["index"] >= ROTATION:
            raise ValueError(f"{tsv_path}: row {main['index']} is a rotation, but its question {number} is not there")
        questions.append((main, _score_question(main, groups[number], predictions)))
    overall = _means([scores for _, scores in questions])
    return {
        "benchmark": "mmbench",
        "questions": len(questions),
        "rows": len(rows),
        "accuracy": overall["circular_exact"],
        **overall,
        "by_category": {column: _by(column, questions) for column in ("category", "l2-category")},
        "per_question": [{"id": str(main["index"]), "score": scores["circular_exact"]} for main, scores in questions],
    }


def write_upload(tsv_path: str | Path, answers_path: str | Path, xlsx_path: str | Path) -> None:
    """Publish the answers as the kit's upload: the table without images, with a `prediction` column.

    Columns that the table lacks need not be dropped. Raises like `score_mmbench`.
    """
    from openpyxl import Workbook
    from openpyxl.utils.escape import escape

    rows = _read_table(tsv_path)
    predictions = _predictions(answers_path, rows)
    columns = [column for column in rows[0] if column not in UPLOAD_DROPS]
    columns.insert(UPLOAD_POSITION, "prediction")
    book = Workbook()
    book.properties.created = book.properties.modified = datetime(*EPOCH)
    sheet = book.active
    sheet.append(columns)
    for number, row in enumerate(rows, 2):
        filled = row | {"prediction": predictions[row["index"]]}
        for place, column in enumerate(columns, 1):
            cell = sheet.cell(number, place)
            value = filled[column]
            cell.value = escape(value) if isinstance(value, str) else value  # control characters
            if isinstance(value, str):
                cell.data_type = "s"  # also where it begins like a formula
    written = io.BytesIO()
    book.save(written)
    with publish(xlsx_path) as temporary, zipfile.ZipFile(written) as source, zipfile.ZipFile(temporary, "w") as target:
        for name in source.namelist():
            content = re.sub(rb"(<dcterms:modified[^>]*>)[^<]*", rb"\g<1>1980-01-01T00:00:00Z", source.read(name))
            target.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED)


def _read_table(path: str | Path, *, images: bool = False) -> list[dict[str, Any]]:
    """Rows of the benchmark's TSV; what pandas (and so the kit) takes for empty is None."""
    import pandas as pd

    table = pd.read_csv(path, sep="\t", dtype=str, usecols=lambda name: images or name != "image")
    table = table.astype(object).where(table.notna(), None)
    rows = [row | {"index": _index(path, number, row)} for number, row in enumerate(table.to_dict("records"), 1)]
    if not rows:
        raise ValueError(f"{path}: holds no question")
    repeated = [index for index, count in Counter(row["index"] for row in rows).items() if count > 1]
    if repeated:
        raise ValueError(f"{path}: {len(repeated):,} indexes appear more than once (first: {repeated[0]})")
    return rows


def _index(path: str | Path, number: int, row: dict[str, Any]) -> int:
    text = str(row.get("index", ""))
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{path}: row {number}, column index: {text!r} is no whole number")
    return int(text)


def _predictions(answers_path: str | Path, rows: list[dict[str, Any]]) -> dict[int, str]:
    answers = read_answers(answers_path)
    require_all_answered(
        answers_path, (row["index"] for row in rows), (int(answer["question_id"]) for answer in answers)
    )
    return {int(answer["question_id"]): answer["text"] for answer in answers}


def _score_question(main: dict[str, Any], group: list[dict[str, Any]], predictions: dict[int, str]) -> dict[str, int]:
    exact = {row["index"]: predictions[row["index"]] == row["answer"] for row in group}
    inferred = [infer_choice(predictions[row["index"]], _options(row)) == row["answer"] for row in group]
    return {
        "circular_exact": int(all(exact.values())),
        "circular_infer": int(all(inferred)),
        "vanilla": int(exact[main["index"]]),
    }


def _options(row: dict[str, Any]) -> dict[str, str]:
    """The options in order, up to the first empty one."""
    options = {}
    for letter in LETTERS:
        if row.get(letter) is None:
            break
        options[letter] = row[letter]
    return options


def _means(scores: list[dict[str, int]]) -> dict[str, float]:
    return {metric: sum(score[metric] for score in scores) / len(scores) for metric in METRICS}


def _by(column: str, questions: list[tuple[dict[str, Any], dict[str, int]]]) -> dict[str, dict[str, float]]:
    """The three metrics for each value of a column of the table."""
    parts = defaultdict(list)
    for main, scores in questions:
        parts[main.get(column) or "none"].append(scores)
    return {name: {"questions": len(parts[name]), **_means(parts[name])} for name in sorted(parts)}

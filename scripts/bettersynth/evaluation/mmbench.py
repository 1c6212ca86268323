"""MMBench accuracy under circular evaluation (Liu et al. 2023, arXiv:2307.06281), in three readings.

The benchmark asks every question once for each rotation of its options; a rotation is a row of the table whose
index is the first row's plus a multiple of a million. A question counts when *all* its rows are answered right.

- `circular_exact`: the contest's metric; an answer is right when it *is* the letter.
- `circular_infer`: the letter is looked for in the answer first, as VLMEvalKit does without a judge model.
- `vanilla`: the first row of each question alone, exact.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

from bettersynth.core.publish import publish
from bettersynth.evaluation.answers import read_answers, require_all_answered

ROTATION = 1_000_000
LETTERS = "ABCD"
METRICS = ("circular_exact", "circular_infer", "vanilla")
UPLOAD_DROPS = ("hint", "category", "source", "comment", "l2-category")
UPLOAD_POSITION = 6

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time in an upload, whenever it is written: the earliest that a zip file can state."""

_SEPARATORS = re.compile(r"[.()\[\],:;!*#{}\s]+")
_LAST_WORDS = 5


def infer_choice(answer: str, options: dict[str, str]) -> str | None:
    """The option that an answer in words means, or None when that is not certain.

    `options` maps letters to texts. First the letters: the answer means the only letter that stands alone in
    it, if among its last five words (before, it may be an article). Then the texts: the only option whose text
    the answer holds, unless the answer is more than twice as long as all options together.
    """
    words = [word for word in _SEPARATORS.split(answer) if word]
    letters = [letter for letter in options if letter in words]
    if len(letters) == 1 and words.index(letters[0]) >= len(words) - _LAST_WORDS:
        return letters[0]
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

    rows = _read_table(tsv_path)
    predictions = _predictions(answers_path, rows)
    columns = [column for column in rows[0] if column not in UPLOAD_DROPS]
    columns.insert(UPLOAD_POSITION, "prediction")
    book = Workbook()
    book.properties.created = book.properties.modified = datetime(*EPOCH)
    sheet = book.active
    sheet.append(columns)
    for row in rows:
        filled = row | {"prediction": predictions[row["index"]]}
        sheet.append([filled[column] for column in columns])
    written = io.BytesIO()
    book.save(written)
    with publish(xlsx_path) as temporary, zipfile.ZipFile(written) as source, zipfile.ZipFile(temporary, "w") as target:
        for name in source.namelist():
            content = re.sub(rb"(<dcterms:modified[^>]*>)[^<]*", rb"\g<1>1980-01-01T00:00:00Z", source.read(name))
            target.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED)


def _read_table(path: str | Path) -> list[dict[str, Any]]:
    """Rows of the benchmark's TSV without their images; what pandas (and so the kit) takes for empty is None."""
    import pandas as pd

    table = pd.read_csv(path, sep="\t", dtype=str, usecols=lambda name: name != "image")
    table = table.astype(object).where(table.notna(), None)
    rows = [row | {"index": int(row["index"])} for row in table.to_dict("records")]
    if not rows:
        raise ValueError(f"{path}: holds no question")
    repeated = [index for index, count in Counter(row["index"] for row in rows).items() if count > 1]
    if repeated:
        raise ValueError(f"{path}: {len(repeated):,} indexes appear more than once (first: {repeated[0]})")
    return rows


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

"""MMBench: three readings of circular evaluation, the upload, and the published ratios' arithmetic."""

import csv
import json
import random

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bettersynth.configuration.benchmark import CellError
from bettersynth.evaluation.answers import AnswersError
from bettersynth.evaluation.benchmarks.mmbench import ROTATION, MMBench, infer_choice, score_mmbench, write_upload

COLUMNS = ["index", "question", "hint", *"ABCD", "answer", "category", "image", "source", "l2-category", "comment"]
COLUMNS += ["split"]
WORDS = ["a red circle", "two blue squares", "the green star", "nothing at all"]

PUBLISHED_MMBENCH_RATIOS = [
    *(1.0392, 1.0458, 2.9151, 0.9412, 1.3530, 2.6602, 2.9804, 2.0850, 0.8562, 0.8628, 2.183, 1.3464),
    *(0.7909, 0.8235, 0.9739),
    *(0.9543, 2.7190, 2.7386, 2.5687, 2.6602, 2.6210, 2.9608, 3.5099, 2.7778, 2.3007, 2.7125, 1.8105, 2.4902),
    *(1.7909, 3.5818, 2.0523, 2.9085, 2.5360, 3.0197),
]
BASELINE_HITS = 152.9976  # 0.1301 of 1,176 questions


def _rows(questions, options=4):
    """A table with all rotations of each question; question `n` has its right option at letter `n % options`."""
    rows = []
    for number in range(questions):
        texts = WORDS[:options]
        right = texts[number % options]
        for rotation in range(options):
            turned = texts[rotation:] + texts[:rotation]
            cells = dict(zip("ABCD", turned + [""] * (4 - options), strict=True))
            rows.append(
                {
                    "index": number + rotation * ROTATION,
                    "question": f"what is shown, {number}?",
                    "hint": "a passage\twith a tab" if number % 2 else "",
                    **cells,
                    "answer": "ABCD"[turned.index(right)],
                    "category": ["ocr", "identity"][number % 2],
                    "l2-category": "perception",
                    "image": "aGVsbG8=",
                    "source": "here",
                    "comment": "",
                    "split": "dev",
                }
            )
    return rows


def _table(folder, rows):
    table = folder / "mmbench.tsv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *(key for key in rows[0] if key not in COLUMNS)], delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return table


def _write(folder, rows, predictions):
    table, answers = _table(folder, rows), folder / "answers.jsonl"
    lines = [
        json.dumps({"question_id": index, "round_id": 0, "text": text}) + "\n" for index, text in predictions.items()
    ]
    answers.write_text("".join(lines))
    return table, answers


def _right(rows):
    return {row["index"]: row["answer"] for row in rows}


def test_all_right_and_one_wrong_rotation_zeroes_its_question(tmp_path):
    rows = _rows(6)
    right = _right(rows)
    assert score_mmbench(*_write(tmp_path, rows, right))["circular_exact"] == 1.0
    wrong = right | {2 * ROTATION + 3: "Z"}
    result = score_mmbench(*_write(tmp_path, rows, wrong))
    assert result["circular_exact"] == pytest.approx(5 / 6)
    assert result["vanilla"] == 1.0
    assert [row["score"] for row in result["per_question"]] == [1, 1, 1, 0, 1, 1]
    assert result["by_category"]["category"]["identity"]["circular_exact"] == pytest.approx(2 / 3)
    assert result["by_category"]["category"]["ocr"] == {
        "questions": 3,
        "circular_exact": 1.0,
        "circular_infer": 1.0,
        "vanilla": 1.0,
    }
    assert result["by_category"]["l2-category"]["perception"]["questions"] == 6


def test_always_a_scores_nothing_circular_and_the_share_of_a_vanilla(tmp_path):
    """The sizes of `mmbench_dev_20230712`: 4,377 rows, 1,176 questions of two to four options."""
    rows = _rows(1017, 4) + [
        row | {"index": row["index"] + 2000} for row in _rows(150, 2)
    ]  # 4,068 + 300 rows; nine single-option questions make 4,377 and 1,176
    rows += [_rows(1, 1)[0] | {"index": 3000 + number, "answer": "A"} for number in range(9)]
    assert len(rows) == 4377
    result = score_mmbench(*_write(tmp_path, rows, {row["index"]: "A" for row in rows}))
    main = [row for row in rows if row["index"] < ROTATION]
    assert (result["rows"], result["questions"]) == (4377, 1176) == (4377, len(main))
    assert result["circular_exact"] == result["circular_infer"] == pytest.approx(9 / 1176)
    assert result["vanilla"] == pytest.approx(sum(row["answer"] == "A" for row in main) / 1176)


def test_raw_equality_is_exact_and_words_are_inferred(tmp_path):
    rows = _rows(2, 2)
    texts = {row["index"]: f"{row['answer']}." for row in rows}
    result = score_mmbench(*_write(tmp_path, rows, texts))
    assert (result["circular_exact"], result["vanilla"], result["circular_infer"]) == (0.0, 0.0, 1.0)
    texts = {row["index"]: "It is " + row[row["answer"]] for row in rows}
    assert score_mmbench(*_write(tmp_path, rows, texts))["circular_infer"] == 1.0


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 1))
def test_circular_never_exceeds_vanilla_and_order_does_not_matter(tmp_path_factory, seed, share):
    chance = random.Random(seed)
    rows = _rows(8)
    predictions = {row["index"]: row["answer"] if chance.random() < share else chance.choice("ABCDE") for row in rows}
    folder = tmp_path_factory.mktemp("mmbench")
    result = score_mmbench(*_write(folder, rows, predictions))
    assert result["circular_exact"] <= result["vanilla"]
    assert result["circular_exact"] <= result["circular_infer"]
    chance.shuffle(rows)
    assert score_mmbench(*_write(folder, rows, dict(sorted(predictions.items(), reverse=True)))) == result


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("The answer is B.", "B"),
        ("B. cat", "B"),
        ("A or B", None),
        ("b", None),
        ("cat", "B"),
        ("It is a Cat!", "B"),
        ("cat and dog", None),
        ("A picture that I would say quite clearly shows a cat", "B"),
        ("E", None),
        ("", None),
        ("cat " * 40, None),
        ("A fish or wolf or bird", None),  # five words: the first may be an article
        ("B fish or wolf", "B"),
        ("The correct answer is **C**. The reason is that its scales are all golden and that it swims", "C"),
        ("The answer is a blur, so I had to guess at what the picture might show", "A"),  # VLMEvalKit's, too
        ("The answer is D, which is the last of them all, as anybody can see", None),
        ("Cannot determine the answer: cat", None),
        ("Z cat", None),
    ],
)
def test_infer_choice(answer, choice):
    options = {"A": "dog sleeping on a sofa" if answer.startswith("A p") else "dog", "B": "cat", "C": "a fish of gold"}
    assert infer_choice(answer, options) == choice


def test_an_empty_option_ends_the_list(tmp_path):
    """pandas, and so the kit, takes `None` for an empty cell: its text can then not be inferred."""
    row = _rows(1, 1)[0] | {"A": "cat", "B": "dog", "C": "", "D": "fish", "answer": "D"}
    result = score_mmbench(*_write(tmp_path, [row], {0: "D"}))
    assert (result["circular_exact"], result["circular_infer"]) == (1.0, 0.0)


def test_answer_files_that_are_not_whole_are_refused(tmp_path):
    rows = _rows(3)
    right = _right(rows)
    for predictions, message in (
        ({index: text for index, text in right.items() if index != 2}, "1 missing .first: 2"),
        (right | {77: "A"}, "1 unknown .first: 77"),
    ):
        with pytest.raises(AnswersError, match=message):
            score_mmbench(*_write(tmp_path, rows, predictions))
    table, answers = _write(tmp_path, rows, right)
    answers.write_text(answers.read_text() + json.dumps({"question_id": 1, "text": "A"}) + "\n")
    with pytest.raises(AnswersError, match=r"13 answers to 12 questions: 1 duplicate .first: 1.*Answer again: rm -rf"):
        score_mmbench(table, answers)


def test_a_table_with_a_stray_rotation_or_a_repeated_index_is_an_error(tmp_path):
    rows = _rows(2)
    with pytest.raises(ValueError, match="rotation"):
        score_mmbench(*_write(tmp_path, rows[1:], _right(rows[1:])))
    with pytest.raises(ValueError, match="more than once"):
        score_mmbench(*_write(tmp_path, [*rows, rows[0]], _right(rows)))


def test_upload_has_the_kits_columns_and_the_same_bytes_again(tmp_path):
    rows = _rows(2)
    table, answers = _write(tmp_path, rows, _right(rows))
    first, second = tmp_path / "first.xlsx", tmp_path / "second.xlsx"
    write_upload(table, answers, first)
    write_upload(table, answers, second)
    assert first.read_bytes() == second.read_bytes()
    sheet = list(openpyxl.load_workbook(first).active.values)
    assert sheet[0] == ("index", "question", "A", "B", "C", "D", "prediction", "answer", "split")
    assert [row[6] for row in sheet[1:]] == [row["answer"] for row in rows]
    assert [row[0] for row in sheet[1:]] == [row["index"] for row in rows]


def test_an_upload_holds_no_formula_and_no_control_character(tmp_path):
    rows = _rows(1)
    texts = ["=1+1", "=cmd|'/c calc'!A1", "a\x07b", "@x"]
    for row, text in zip(rows, texts, strict=True):
        row["question"] = text
    table, answers = _write(tmp_path, rows, {row["index"]: "=2" for row in rows})
    write_upload(table, answers, tmp_path / "upload.xlsx")
    sheet = list(openpyxl.load_workbook(tmp_path / "upload.xlsx").active.iter_rows(min_row=2))
    assert {cell.data_type for row in sheet for cell in row} <= {"s", "n"}
    assert [row[1].value for row in sheet] == ["=1+1", "=cmd|'/c calc'!A1", "a_x0007_b", "@x"]
    assert all(row[6].value == "=2" for row in sheet)


PICTURE = "/9j/4AAQSkZJRgABAQ=="
HOSTILE_TABLES = {
    "lower case": ({"answer": "a"}, "answer", "none of A, B, C, D"),
    "empty": ({"answer": ""}, "answer", "None is none of"),
    "not shown": ({"C": "", "D": "", "answer": "D"}, "answer", "the options are A, B"),
    "a fifth option": ({"E": "five"}, "E", "an option beyond D"),
    "a reference": ({"image": "17"}, "image", "refers to row 17"),
    "lines": ({"image": f"{PICTURE}\\n{PICTURE}"}, "image", "no base64"),
    "spaces": ({"image": f"{PICTURE[:8]} {PICTURE[8:]}"}, "image", "leave them out"),
    "a URI": ({"image": f"data:image/jpeg;base64,{PICTURE}"}, "image", "a `data:` URI"),
    "no picture": ({"image": ""}, "image", "empty"),
}


@pytest.mark.parametrize("table", HOSTILE_TABLES)
def test_odd_cells_are_named_before_anything_is_asked(tmp_path, table):
    changes, column, words = HOSTILE_TABLES[table]
    rows = [row | {"image": PICTURE} for row in _rows(1)]
    rows[0] |= changes
    benchmark = MMBench(questions=str(_table(tmp_path, rows)))
    findings = []
    read = benchmark.rows()
    for row in read:
        try:
            benchmark.ask(row)
        except CellError as error:
            findings.append((error.key, error.detail))
    findings += [(fault.key, fault.detail) for fault in benchmark.faults(read) if fault.row == 1]
    assert any(key == column and words in detail for key, detail in findings), findings


def test_an_index_that_is_no_whole_number_is_named(tmp_path):
    table = _table(tmp_path, [row | {"index": "1.0"} for row in _rows(1)])
    with pytest.raises(ValueError, match=r"row 1, column index: '1\.0' is no whole number"):
        MMBench(questions=str(table)).rows()


def test_a_test_split_is_refused_in_one_sentence(tmp_path):
    benchmark = MMBench(questions=str(_table(tmp_path, [row | {"answer": ""} for row in _rows(3)])))
    (fault,) = benchmark.faults(benchmark.rows())
    assert "a test split" in fault.detail


def test_options_cut_at_none_are_kept_counted_and_said(tmp_path):
    """As by the kit, which neither shows such an option nor those behind it."""
    rows = _rows(2)
    rows[0] |= {"B": "None", "answer": "C"}
    benchmark = MMBench(questions=str(_table(tmp_path, rows)))
    read = benchmark.rows()
    assert list(benchmark.faults(read)) == []
    assert list(benchmark.remarks(read).values()) == [1]


def test_answers_that_turn_up_lower_case_later_are_no_zero(tmp_path):
    rows = _rows(1)
    table, answers = _write(tmp_path, [row | {"answer": row["answer"].lower()} for row in rows], _right(rows))
    with pytest.raises(ValueError, match="row 1, column answer"):
        MMBench(questions=str(table)).score(answers)


@pytest.mark.parametrize("ratio", PUBLISHED_MMBENCH_RATIOS)
def test_published_ratios_are_whole_numbers_of_questions(ratio):
    """Every figure of the write-up is a number of right questions over one baseline, to its rounding."""
    hits = ratio * BASELINE_HITS
    assert abs(hits - round(hits)) <= 0.5e-4 * BASELINE_HITS + 0.004

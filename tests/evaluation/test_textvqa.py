"""TextVQA: the published evaluator's numbers, and refusal of answer files that are not whole."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bettersynth.evaluation.answers import AnswersError
from bettersynth.evaluation.benchmarks.textvqa import answer_scores, normalise, question_of, score_textvqa

DAKOTA = ["nous les gosses", "dakota", "clos culombu", "dakota digital", "dakota", "dakota"]
DAKOTA += ["dakota digital", "dakota digital", "dakota", "dakota"]
PROMPT = "{}\nReference OCR token: DAKOTA, DIGITAL\nAnswer the question using a single word or phrase."


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The Dark-Knight!", "dark knight"),
        ("1,000", "1000"),
        ("U.S.A.", "usa"),
        ("it's 5pm", "it 's 5pm"),
        ("dont", "don't"),
        ("Coca-Cola", "coca cola"),
        ("w/o", "w o"),
        ("a/b", "b"),
        ("$5.00", "$5.00"),
        ("St. John's", "st john 's"),
        ("None", "0"),
        ("10:30", "10:30"),
        ("7-up,", "7 up"),
    ],
)
def test_normalise_gives_the_published_evaluators_values(answer, expected):
    assert normalise(answer) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("y'alld've", "y'all'd've"),
        ("somebody'd", "somebodyd"),
        ("shes", "shes"),
        ("im ten", "im 10"),
        ("a (b) c - d-e", "b c de"),
        ("line\nbreak\tten", "line break 10"),
        (". " * 40, ". . . . . . . ."),
    ],
)
def test_normalise_keeps_the_evaluators_quirks(answer, expected):
    assert normalise(answer) == expected


@given(st.text())
def test_normalised_text_has_single_spaces_and_no_upper_case(text):
    result = normalise(text)
    assert result == " ".join(result.split())
    assert result == result.lower()


@pytest.mark.parametrize(("count", "score"), [(1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (5, 1.0), (10, 1.0)])
def test_score_by_number_of_annotators_who_agree(count, score):
    assert answer_scores(["nokia"] * count + ["toshiba"] * (10 - count))["nokia"] == pytest.approx(score)


@given(st.lists(st.sampled_from(["nokia", "Nokia!", "toshiba", "the nokia", "3310"]), min_size=10, max_size=10))
def test_score_is_the_mean_over_leaving_one_annotator_out(annotations):
    answers = [normalise(answer) for answer in annotations]
    for answer, score in answer_scores(annotations).items():
        left_out = [min(1, (answers[:i] + answers[i + 1 :]).count(answer) / 3) for i in range(10)]
        assert score == pytest.approx(sum(left_out) / 10)


def test_question_of_both_prompt_forms_and_no_other():
    assert question_of(PROMPT.format("what brand?")) == "what brand?"
    assert question_of("what brand?\nAnswer the question.") == "what brand?"
    for prompt in ("what brand?", "what\nbrand?\nAnswer.", "a\nReference OCR token: \nb\nc"):
        with pytest.raises(ValueError, match="not a TextVQA prompt"):
            question_of(prompt)


def _write_benchmark(folder, rows):
    """`rows`: (image, question, annotations, predicted); returns the three paths of `score_textvqa`."""
    prompts = [(image, PROMPT.format(question)) for image, question, _, _ in rows]
    questions, annotations, answers = folder / "q.jsonl", folder / "a.json", folder / "answers.jsonl"
    questions.write_text(
        "".join(json.dumps({"question_id": i, "image": f"{i}.jpg", "text": p}) + "\n" for i, p in prompts)
    )
    data = [
        {"image_id": image, "question": question.capitalize(), "question_id": 34602 + number, "answers": ten}
        for number, (image, question, ten, _) in enumerate(rows)
    ]
    annotations.write_text(json.dumps({"data": data}))
    _write_answers(answers, [(i, p, row[3]) for (i, p), row in zip(prompts, rows, strict=True)])
    return questions, annotations, answers


def _write_answers(path, answers):
    path.write_text("".join(json.dumps({"question_id": i, "prompt": p, "text": t}) + "\n" for i, p, t in answers))


def test_published_pair_scores_045(tmp_path):
    rows = [
        ("i1", "what brand?", ["nokia"] * 3 + ["toshiba"] * 7, "Nokia"),
        ("i1", "what letter?", ["nokia"] * 10, "x"),
    ]
    result = score_textvqa(*_write_benchmark(tmp_path, rows))
    assert result["accuracy"] == pytest.approx(0.45)
    assert result["questions"] == 2
    assert result["per_question"] == [
        {"id": "34602", "group": "i1", "score": 0.9},
        {"id": "34603", "group": "i1", "score": 0.0},
    ]


@pytest.mark.parametrize(("text", "score"), [("dakota", 1.0), ("Dakota digital", 0.9), ("nous les gosses", 0.3)])
def test_the_dakota_question(tmp_path, text, score):
    paths = _write_benchmark(tmp_path, [("003a8ae2ef43b901", "what is the brand of this camera?", DAKOTA, text)])
    assert score_textvqa(*paths)["accuracy"] == pytest.approx(score)


def test_the_order_of_answers_does_not_matter(tmp_path):
    rows = [(f"i{n}", f"what {n}?", [str(n)] * 10, str(n if n % 2 else 99)) for n in range(6)]
    questions, annotations, answers = _write_benchmark(tmp_path, rows)
    first = score_textvqa(questions, annotations, answers)
    lines = answers.read_text().splitlines(keepends=True)
    answers.write_text("".join(reversed(lines)))
    assert score_textvqa(questions, annotations, answers) == first
    assert first["accuracy"] == 0.5


def test_answer_files_that_are_not_whole_are_refused(tmp_path):
    rows = [(f"i{n}", f"what {n}?", [str(n)] * 10, str(n)) for n in range(6)]
    questions, annotations, answers = _write_benchmark(tmp_path, rows)
    lines = answers.read_text().splitlines(keepends=True)
    cases = {
        "2 missing .first: i4": lines[:4],
        "1 duplicate .first: i0": [*lines, lines[0]],
        "1 unknown .first: i9": [*lines, lines[0].replace('"i0"', '"i9"')],
        "line 6: not JSON": [*lines[:5], lines[5][:20]],
    }
    for message, content in cases.items():
        answers.write_text("".join(content))
        with pytest.raises(AnswersError, match=message) as refused:
            score_textvqa(questions, annotations, answers)
        assert str(answers) in str(refused.value)
        assert f"rm -rf {answers} " in str(refused.value)


def test_a_question_without_ten_annotations_is_an_error(tmp_path):
    paths = _write_benchmark(tmp_path, [("i", "what?", ["a"] * 9, "a")])
    with pytest.raises(ValueError, match="9 answers instead of 10"):
        score_textvqa(*paths)

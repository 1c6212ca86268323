"""A run's model is asked the benchmarks' questions in one job: the kit's files, and what is asked again."""

import base64
import io
import json
import shutil

import pytest
from tiny_mgm import make_image, make_run, make_talker

from bettersynth.configuration.types import Configuration
from bettersynth.core.digests import sha256_folder
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, write_json
from bettersynth.evaluation.answering import write_answers
from bettersynth.evaluation.benchmarks.mmbench import mmbench_prompt, score_mmbench
from bettersynth.evaluation.benchmarks.textvqa import score_textvqa
from bettersynth.evaluation.preflight import check_questions
from bettersynth.training.mgm.generation import Answerer
from bettersynth.training.preflight import PreflightError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_talker(tmp_path_factory.mktemp("talker"))


def test_mmbench_prompt():
    assert mmbench_prompt("what ?", None, ["red", "blue"]) == "what ?\nA. red\nB. blue"
    assert mmbench_prompt("what ?", "this is red", ["one", "two", "a", "an"]) == (
        "this is red\nwhat ?\nA. one\nB. two\nC. a\nD. an"
    )


@pytest.fixture
def run(checkpoint, tmp_path):
    """A finished run of recipe `tiny` with questions of two benchmarks beside it."""
    training = make_run(tmp_path)
    folder = tmp_path / "images"
    textvqa = [
        {
            "question_id": f"{number}",
            "image": f"{number}.png",
            "text": "what is this ?\nReference OCR token: one , two\nDescribe it .",
        }
        for number in range(3)
    ]
    (tmp_path / "textvqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in textvqa))
    annotations = [
        {
            "image_id": f"{number}",
            "question": "what is this ?",
            "question_id": number,
            "answers": ["red"] * 10,
        }
        for number in range(3)
    ]
    write_json(tmp_path / "annotations.json", {"data": annotations})
    image = io.BytesIO()
    make_image(1).save(image, "PNG")
    encoded = base64.b64encode(image.getvalue()).decode()
    header = "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage\tsource\tl2-category\tcomment\tsplit"
    rows = [
        f"7\twhat is this ?\tit is red\tred\tblue\tgreen\t\tA\tcolour\t{encoded}\tx\tcoarse\t\tdev",
        f"1000007\twhat is this ?\tit is red\tblue\tgreen\tred\t\tC\tcolour\t{encoded}\tx\tcoarse\t\tdev",
        f"8\tis it a circle ?\tNONE\tone\ttwo\t\t\tB\tshape\t{encoded}\tx\tcoarse\t\tdev",
    ]
    (tmp_path / "mmbench.tsv").write_text("\n".join([header, *rows]) + "\n")
    configuration = Configuration.model_validate(
        training.model_dump(by_alias=True)
        | {
            "evaluation": {
                "textvqa": {
                    "questions": str(tmp_path / "textvqa.jsonl"),
                    "annotations": str(tmp_path / "annotations.json"),
                    "images": str(folder),
                    "max_new_tokens": 4,
                },
                "mmbench": {"questions": str(tmp_path / "mmbench.tsv"), "max_new_tokens": 4},
                "batch": 2,
                "precision": "fp32",
            }
        }
    )
    layout = Layout(tmp_path / "results")
    write_json(layout.finetune("tiny", 1) / "card.json", {"status": "done", "sha256": sha256_folder(checkpoint)})
    (layout.finetune("tiny", 1) / "checkpoint").symlink_to(checkpoint)
    return configuration, layout


@pytest.mark.parametrize("benchmark", ["textvqa", "mmbench"])
def test_questions_are_looked_at_before_they_are_asked(run, benchmark):
    configuration, layout = run[:2]
    card = check_questions(benchmark, configuration, layout)
    assert card["questions"] == 3 and read_json(layout.questions_card(benchmark)) == card


def test_everything_that_would_stop_textvqa_is_said_at_once(run, tmp_path):
    configuration, layout = run[:2]
    path = tmp_path / "textvqa.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows += [{**rows[0], "text": "who ?\nDescribe it ."}, {**rows[0], "image": "../0.png"}, {"question_id": "bare"}]
    rows += [{**rows[0], "text": "what is this ?"}, {**rows[0], "text": "what is <image> this ?\nDescribe it ."}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    image = tmp_path / "images" / "1.png"
    image.write_bytes(image.read_bytes()[:-40])
    (tmp_path / "images" / "2.png").unlink()
    with pytest.raises(PreflightError, match="findings in 8 rows") as caught:
        check_questions("textvqa", configuration, layout)
    for said in (
        "no annotation",
        "`..`",
        "no 'text'",
        "not a TextVQA prompt",
        "<image>",
        "image missing",
        "image unreadable",
    ):
        assert said in str(caught.value)
    assert len(layout.findings(layout.questions_card("textvqa")).read_text().splitlines()) >= 7
    assert not layout.questions_card("textvqa").exists()


def test_everything_that_would_stop_mmbench_is_said_at_once(run, tmp_path):
    configuration, layout = run[:2]
    path = tmp_path / "mmbench.tsv"
    lines = path.read_text().splitlines()
    bad = lines[3].replace("8\t", "9\t", 1).split("\t")
    bad[9] = "bm8gaW1hZ2U="
    stray = [*lines[1].split("\t")]
    stray[0] = "1000099"
    no_base64 = [*lines[1].split("\t")]
    no_base64[0], no_base64[9] = "10", "%%%"
    unanswered = [*lines[1].split("\t")]
    unanswered[0], unanswered[7] = "11", "E"
    path.write_text("\n".join([*lines, *("\t".join(row) for row in (bad, stray, no_base64, unanswered))]) + "\n")
    with pytest.raises(PreflightError, match="4 findings in 7 rows") as caught:
        check_questions("mmbench", configuration, layout)
    for said in ("image format", "question 99 is not there", "base64", "'E' is none of A, B, C, D"):
        assert said in str(caught.value)


def test_a_benchmarks_file_that_is_none_is_a_finding(run, tmp_path):
    configuration, layout = run[:2]
    (tmp_path / "annotations.json").write_text("{")
    with pytest.raises(PreflightError, match="unreadable file"):
        check_questions("textvqa", configuration, layout)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_textvqa_answers_are_in_the_kits_form_and_score(run):
    configuration, layout = run
    write_answers("tiny", 1, configuration, layout)
    path = layout.answers("tiny", 1, "textvqa")
    answers = lines(path)
    assert [answer["question_id"] for answer in answers] == ["0", "1", "2"]
    assert all(answer.keys() == {"question_id", "prompt", "text", "model_id"} for answer in answers)
    assert answers[0]["prompt"] == "what is this ?\nReference OCR token: one , two\nDescribe it ."
    assert answers[0]["model_id"] == "tiny-seed-1"
    steady = read_json(layout.answers_card("tiny", 1, "textvqa"))["steady"]
    assert steady["amount"] == 1 and steady["seconds"] > 0, "of two batches, the second"
    section = configuration.evaluation.textvqa
    assert score_textvqa(section.questions, section.annotations, path)["questions"] == 3


def test_mmbench_answers_are_in_the_kits_form_and_score(run):
    configuration, layout = run
    write_answers("tiny", 1, configuration, layout)
    path = layout.answers("tiny", 1, "mmbench")
    answers = lines(path)
    assert [answer["question_id"] for answer in answers] == [7, 1000007, 8]
    assert answers[1]["prompt"] == "it is red\nwhat is this ?\nA. blue\nB. green\nC. red"
    assert answers[1]["options"] == ["blue", "green", "red"] and answers[1]["option_char"] == ["A", "B", "C"]
    assert answers[2]["prompt"] == "is it a circle ?\nA. one\nB. two"
    assert len({answer["answer_id"] for answer in answers}) == 3
    assert score_mmbench(configuration.evaluation.mmbench.questions, path)["rows"] == 3


def test_a_stopped_seed_answers_nothing(run):
    configuration, layout = run
    write_json(layout.finetune("tiny", 1) / "card.json", {"status": "stopped"})
    write_answers("tiny", 1, configuration, layout)
    assert layout.answers("tiny", 1, "textvqa").read_bytes() == b""


@pytest.fixture
def loaded(monkeypatch):
    """How often a model is loaded, and the numbers of questions that it is asked."""
    loads, asked = [], []
    original_open, original_answers = Answerer.open.__func__, Answerer.answers

    def opened(cls, *arguments):
        loads.append(arguments[0])
        return original_open(cls, *arguments)

    def answers(self, questions, *arguments):
        texts = original_answers(self, questions, *arguments)
        asked.append(len(texts))
        return texts

    monkeypatch.setattr(Answerer, "open", classmethod(opened))
    monkeypatch.setattr(Answerer, "answers", answers)
    return loads, asked


def changed(configuration, **evaluation):
    known = configuration.model_dump(by_alias=True)
    kept = {key: value for key, value in (known["evaluation"] | evaluation).items() if value is not None}
    return Configuration.model_validate(known | {"evaluation": kept})


def test_the_model_is_loaded_once_and_only_what_is_new_is_asked(run, loaded):
    configuration, layout = run
    loads, asked = loaded
    cards = [layout.answers_card("tiny", 1, benchmark) for benchmark in ("textvqa", "mmbench")]
    write_answers("tiny", 1, changed(configuration, mmbench=None), layout)
    assert (len(loads), asked) == (1, [3]) and not cards[1].exists()
    first = read_json(cards[0])
    cards[0].unlink()  # as Snakemake does before a job

    write_answers("tiny", 1, configuration, layout)  # with one more benchmark
    assert (len(loads), asked) == (2, [3, 3])
    assert read_json(cards[0]) == first and read_json(cards[1])["benchmark"] == "mmbench"

    write_answers("tiny", 1, configuration, layout)
    assert len(loads) == 2
    longer = configuration.evaluation.mmbench.model_dump() | {"max_new_tokens": 2}
    write_answers("tiny", 1, changed(configuration, mmbench=longer), layout)
    assert (len(loads), asked) == (3, [3, 3, 3]) and read_json(cards[0]) == first
    model = layout.finetune("tiny", 1)
    other = shutil.copytree((model / "checkpoint").resolve(), model.parent / "other")
    (other / "more.json").write_text("{}")
    (model / "checkpoint").unlink()
    (model / "checkpoint").symlink_to(other)
    write_json(model / "card.json", {"status": "done", "sha256": sha256_folder(other)})
    write_answers("tiny", 1, configuration, layout)
    assert (len(loads), asked) == (4, [3, 3, 3, 3, 3])


def test_a_job_that_fails_keeps_the_benchmarks_that_were_answered(run, loaded):
    configuration, layout = run
    loads, asked = loaded
    table = layout.root.parent / "mmbench.tsv"
    whole = table.read_text()
    table.write_text(whole.replace(whole.splitlines()[1].split("\t")[9], "bm8gaW1hZ2U="))
    with pytest.raises(ValueError, match="question 7: image"):
        write_answers("tiny", 1, configuration, layout)
    table.write_text(whole)
    write_answers("tiny", 1, configuration, layout)
    assert (len(loads), asked) == (2, [3, 3])


def test_another_reading_of_deep_grey_asks_again(run, loaded):
    configuration, layout = run
    write_answers("tiny", 1, configuration, layout)
    known = configuration.model_dump(by_alias=True)
    known["pool"]["deep_grey"] = "clip"
    write_answers("tiny", 1, Configuration.model_validate(known), layout)
    assert len(loaded[0]) == 2

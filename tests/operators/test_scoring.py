"""The entry point of scoring: finished and stopped runs."""

import json

import pytest
from fake_results import fake_configuration

from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, write_json
from bettersynth.evaluation.answers import AnswersError
from bettersynth.evaluation.scoring import score_answers


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A configuration whose benchmarks are two questions, and the layout of its results."""
    monkeypatch.chdir(tmp_path)
    prompt = "what brand?\nAnswer the question using a single word or phrase."
    (tmp_path / "q.jsonl").write_text(json.dumps({"question_id": "i1", "text": prompt}) + "\n")
    annotation = {"image_id": "i1", "question": "What brand?", "question_id": 7, "answers": ["nokia"] * 10}
    write_json(tmp_path / "a.json", {"data": [annotation]})
    (tmp_path / "q.tsv").write_text("index\tquestion\tA\tB\tanswer\tcategory\n0\twhich?\tcat\tdog\tB\tocr\n")
    layout = Layout(tmp_path / "results")
    answers = {
        "textvqa": {"question_id": "i1", "prompt": prompt, "text": "Nokia"},
        "mmbench": {"question_id": 0, "round_id": 0, "text": "B"},
    }
    for benchmark, answer in answers.items():
        path = layout.answers("best", 1, benchmark)
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(answer) + "\n")
        write_json(layout.answers_card("best", 1, benchmark), {"status": "done"})
    return fake_configuration(tmp_path), layout


@pytest.mark.parametrize("benchmark", ["textvqa", "mmbench"])
def test_a_finished_run_is_scored_and_written(run, benchmark):
    configuration, layout = run
    result = score_answers(benchmark, "best", 1, configuration, layout)
    assert (result["accuracy"], result["questions"], result["status"]) == (1.0, 1, "done")
    assert result["per_question"][0]["score"] == 1
    assert read_json(layout.result("best", 1, benchmark)) == result


def test_a_stopped_run_has_a_result_without_accuracy(run):
    configuration, layout = run
    write_json(layout.answers_card("best", 1, "mmbench"), {"status": "stopped"})
    (layout.finetune("best", 1) / "checkpoint").mkdir(parents=True)  # of a time before seeds were chosen
    write_json(layout.finetune("best", 1) / "card.json", {"status": "stopped"})
    result = score_answers("mmbench", "best", 1, configuration, layout)
    assert (result["benchmark"], result["status"]) == ("mmbench", "stopped")
    assert "accuracy" not in result
    assert read_json(layout.result("best", 1, "mmbench")) == result


def test_an_empty_answer_file_of_a_finished_run_is_refused(run):
    configuration, layout = run
    layout.answers("best", 1, "mmbench").write_text("")
    with pytest.raises(AnswersError, match="0 answers to 1 questions"):
        score_answers("mmbench", "best", 1, configuration, layout)
    assert not layout.result("best", 1, "mmbench").exists()

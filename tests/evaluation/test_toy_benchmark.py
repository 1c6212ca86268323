"""A benchmark that is one file beside the library runs through the real workflow to the report."""

import copy
import json
import re

import pytest
from toys import TOYS, places
from workflow import CONFIGURATION, Run

from miniature.render import render_world

TOY = "toy_signs"


@pytest.mark.workflow
def test_a_benchmark_is_added_by_one_file_and_only_its_questions_are_asked(tmp_path):
    render_world(tmp_path / "data", records=24, second_records=4, textvqa=6, mmbench=2, instructions=16)
    annotations = json.loads((tmp_path / "data" / "textvqa" / "TextVQA_0.5.1_val.json").read_text())["data"]
    questions = [
        {"id": number, "picture": f"{row['image_id']}.jpg", "word": row["answers"][0], "answer": "yes"}
        for number, row in enumerate(annotations)
    ]
    (tmp_path / "data" / "signs.json").write_text(json.dumps(questions))
    content = copy.deepcopy(CONFIGURATION)
    content |= {"operators": {}, "captioners": {}, "datasets": {}, "analyses": {}, "exports": {}}
    content["recipes"] = {"unfiltered": {"dataset": "pool", "published": {TOY: 1.0, "textvqa": 1.0}}}
    del content["evaluation"]["mmbench"]
    run = Run(tmp_path, content, paths=[TOYS])
    run.snakemake()
    before = run.results / "runs" / "unfiltered" / "seed-1" / "evaluation" / "textvqa" / "answers.jsonl"
    asked = before.stat().st_mtime_ns

    content["evaluation"][TOY] = {"questions": "data/signs.json", "images": "data/textvqa/train_images"}
    run.configure(content)
    assert run.would_run() == {"answer": 1, "score_answers": 2, "leaderboard": 1, "early_loss": 1, "report": 1}
    announced = run.snakemake("--dry-run", "--logger", "cost").stdout
    assert re.search(rf"answer: {TOY} +1 +6 questions", announced), announced
    run.snakemake()
    assert before.stat().st_mtime_ns == asked
    assert "Nothing to be done" in run.announced()

    (entry,) = json.loads((run.results / "report" / "leaderboard.json").read_text())["recipes"]
    assert entry[TOY]["n"] == 1 and 0 <= entry[TOY]["mean"] <= 1
    page = (run.results / "report" / "index.html").read_text()
    assert re.search(r">TextVQA<.*>Toy signs<.*Yes or no at all", page, re.DOTALL) and "MMBench" not in page
    card = run.results / "runs" / "unfiltered" / "seed-1" / "finetune" / "checkpoint" / "README.md"
    assert f"| {TOY} | " in card.read_text()
    assert places(TOY) == ["tests/toys/bettersynth_plugin_toy_benchmark.py"]


def test_a_configuration_names_known_benchmarks_and_at_least_one(tmp_path):
    content = copy.deepcopy(CONFIGURATION)
    run = Run(tmp_path, content, paths=[TOYS])
    content["evaluation"] = {"precision": "fp32"}
    run.configure(content)
    said = run.snakemake("--dry-run", check=False).stdout
    assert f"evaluation: names no benchmark; known: mmbench, textvqa, {TOY}" in said
    content["evaluation"] = {"toy_sings": {"questions": "none", "images": "none"}}
    run.configure(content)
    said = run.snakemake("--dry-run", check=False).stdout
    assert "toy_sings" in said and f"did you mean `{TOY}`" in said

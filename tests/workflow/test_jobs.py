"""The specifications of the rules, and that rule blocks, profile and scripts agree with them."""

from __future__ import annotations

import copy
import os
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from workflow import CONFIGURATION, ROOT, Run

from bettersynth.configuration import configure
from bettersynth.configuration.datasets import GENERATORS
from bettersynth.core.layout import Layout
from bettersynth.core.publish import write_json
from bettersynth.deploy.relay import announced_jobs
from bettersynth.report.provenance import provenance
from bettersynth.workflow.jobs import Jobs
from bettersynth.workflow.jobs.specification import ImagesOfRecords, Kind
from bettersynth.workflow.plan import Plan
from miniature.render import render_world

RULES = "\n".join(path.read_text() for path in sorted((ROOT / "rules").glob("*.smk")))


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Jobs(configure({**copy.deepcopy(CONFIGURATION), "name": "small"}, "test"), Layout("results/small"))


def blocks() -> dict[str, str]:
    """Text of each rule block, that of a block it is taken from included."""
    found: dict[str, str] = {}
    for block in re.split(r"\n(?= *(?:use )?rule\b)", RULES):
        if match := re.match(r" *(?:use rule (\w+) as (\w+) with|rule (\w+)):", block):
            found[match[2] or match[3]] = found.get(match[1], "") + block
        elif block.lstrip().startswith("rule:") and (match := re.search(r'f"(\w+)_\{\w+\}"', block)):
            found[match[1]] = block
        elif block.lstrip().startswith("rule:") and "generator.name" in block:
            found |= dict.fromkeys(GENERATORS, block)
    gathers = {name for name in found if "output:" not in found[name]} | {"unknown_recipe"}
    return {name: block for name, block in found.items() if name not in gathers}


def test_every_rule_has_a_specification_and_runs_where_that_says(jobs):
    found = blocks()
    assert {rule.name for rule in jobs} == found.keys()
    light = {name for name, block in found.items() if "localrule: True" in block}
    assert {rule.name for rule in jobs if rule.kind == Kind.LIGHT} == light
    assert {rule.name for rule in jobs if rule.resources.get("gpu")} == jobs.on_gpu
    assert all(".resources," in found[rule.name] for rule in jobs if rule.resources)


def test_logs_lie_where_they_always_did(jobs):
    logs = {job.block: str(job.log) for rule in jobs for job in rule.jobs()}
    assert logs["ingest_stage_1"] == "logs/small/ingest/stage_1.log"
    assert logs["pool_index"] == "logs/small/pool_index.log"
    assert logs["scores_of"] == "logs/small/scores/rewritten/words_num.log"
    assert logs["recaption"].startswith("logs/small/generate/rewritten/rewritten-00")
    assert logs["export"] == "logs/small/export/best.webdataset.log"
    assert logs["finetune"] == "logs/small/finetune/best/2.log"
    assert logs["score_answers"] == "logs/small/score_answers/best/2.mmbench.log"
    assert str(jobs.finetune.job("best", "2").benchmark) == "benchmarks/small/finetune/best/2.tsv"


def test_the_job_that_makes_a_file_is_known_by_the_files_name(jobs):
    every = [job for rule in jobs for job in rule.jobs()]
    every += [
        rule.job("rewritten", f"{rule.kind}-0123abcd", "rewritten-0000-0001")
        for rule in (jobs.score_neural, jobs.score_plain)
    ]
    for job in every:
        for files in job.outputs.values():
            for file in files if isinstance(files, list) else [files]:
                maker = jobs.maker(Path(str(file)))
                assert maker is not None and (maker.rule, dict(maker.wildcards)) == (job.rule, dict(job.wildcards))
    assert jobs.maker(Layout("results/small").inputs) is None


def test_what_goes_with_an_output_is_what_its_card_tells_of(jobs):
    layout = Layout("results/small")
    write_json(layout.file_ledger("stage_1"), {"shards": {"stage_1-0000": {}, "stage_1-0002": {}}})

    def companions(file: Path) -> list[Any]:
        return list(jobs.maker(file).companions(file))

    assert companions(layout.file_ledger("stage_1")) == [
        layout.records("pool", "stage_1-0000"),
        layout.records("pool", "stage_1-0002"),
    ]
    assert companions(layout.order("stage_1")) == []
    card, failed = layout.records_card("rewritten", "rewritten-0001"), layout.failed("rewritten", "rewritten-0001")
    records = layout.records("rewritten", "rewritten-0001")
    assert companions(card) == [records, failed, ImagesOfRecords(records)]
    model = layout.finetune("best", 1)
    for name in ("card.json", "checkpoint/model.safetensors", "checkpoints/step-4/state.pt"):
        write_json(model / name, {})
    assert companions(model / "card.json") == [model / "checkpoint" / "model.safetensors"]
    answers = layout.answers_card("best", 1, "mmbench")
    for path in (answers, answers.with_name("answers.jsonl"), answers.with_name("done.json")):
        write_json(path, {})
    write_json(layout.result("best", 1, "mmbench"), {})
    assert companions(answers) == [answers.with_name("answers.jsonl"), answers.with_name("done.json")]


@pytest.mark.workflow
def test_snakemake_plans_what_the_specifications_say(tmp_path, monkeypatch):
    render_world(tmp_path / "data", records=60, second_records=12, textvqa=12, mmbench=6, instructions=48)
    rungs = [{"steps": 2, "keep": 2}, {"steps": 3, "keep": 2}, {"steps": "end", "keep": 1}]
    content = copy.deepcopy(CONFIGURATION) | {"held_out": "held", "control": "random"}
    content["datasets"]["held"] = {"from": "pool", "sample": {"rows": 8}}
    content["recipes"]["best"] |= {"seeds": [1, 2, 3], "training": {"probe": {"rungs": rungs}}}
    run = Run(tmp_path, content)
    monkeypatch.chdir(tmp_path)
    jobs = Jobs(configure({**run.configuration, "name": "small"}, "test"), Layout("results/small"))
    planned = announced_jobs(tmp_path / "small.yaml", ["all"], None)
    assert len(planned) > 80
    made = Counter(each.rule for each in planned)
    assert (made["held_out"], made["probe"], made["choose_seeds"], made["pretrain"]) == (1, 12, 6, 7)
    by_comment = {job.comment for rule in jobs for job in rule.jobs()}
    for each in planned:
        job = jobs.job(each.rule, each.wildcards)
        outputs = [file for files in job.outputs.values() for file in (files if isinstance(files, list) else [files])]
        assert list(map(str, outputs)) == each.output
        assert list(job.wildcards) == list(job.rule.wildcards), "SLURM's comments have them in this order"
        assert job.comment in by_comment or each.rule.startswith("score_"), "passes are known to the graph alone"

    refused = run.snakemake("--dry-run", "--set-resources", "finetun:gpu=4", check=False)
    assert "set-resources: there is no rule `finetun`; did you mean `finetune`?" in refused.stdout + refused.stderr


def test_the_reports_times_count_answers_and_tries_that_were_cut_off(jobs):
    card = {"seconds": 5, "device": "one GPU", "versions": {"torch": "2"}}
    job = jobs.answer.job(*next(iter(jobs.answer.every())))
    for evidence in job.evidence:
        write_json(evidence.card, card)
    job.log.parent.mkdir(parents=True)
    for number, seconds in ((1, 30), (2, 60)):
        log = job.log.with_name(f"{job.log.stem}.{number}.log")
        log.write_text("on n1 since 2026-01-01T00:00:00+00:00 SLURM_JOB_ID=7\nkilled\n")
        os.utime(log, (0, datetime(2026, 1, 1, 0, 0, seconds % 60, tzinfo=UTC).timestamp() + seconds // 60 * 60))
    job.log.with_name(f"{job.log.stem}.other.log").write_text("of another job\n")
    found = provenance(jobs.configuration, Layout("results/small"), Plan(jobs.configuration))["phases"]["answer"]
    done = len(job.evidence)
    times = {"seconds": 5.0 * done + 90, "gpu_seconds": 5.0 * done}
    assert found == {"jobs": done, "cut_off": 2, **times, "devices": ["one GPU"]}

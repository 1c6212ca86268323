"""`make status`: what is done, at work, queued, failed and stopped, from files, leases and SLURM's queue."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import warm
import yaml
from workflow import CONFIGURATION, ROOT

from bettersynth.configuration import load
from bettersynth.core.layout import Layout
from bettersynth.core.publish import write_json
from bettersynth.runtime import driver
from bettersynth.runtime.lease import Lease
from bettersynth.workflow.fingerprints import Fingerprints

SQUEUE = """#!/bin/bash
[[ $* == *--name=abc-1* ]] || exit 1
echo '41|RUNNING|5:10|n1|rule_finetune_wildcards_unfiltered_1'
echo '42|PENDING|0:00|(Resources)|rule_trainset_wildcards_best'
echo '43|PENDING|0:00|(Priority)|rule_score_neural_wildcards_pool_gpu-0c8500ac9080_stage_1-0000-0002'
"""


@pytest.fixture
def layout(tmp_path, monkeypatch) -> Layout:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(copy.deepcopy(CONFIGURATION)))
    (tmp_path / "squeue").write_text(SQUEUE)
    (tmp_path / "squeue").chmod(0o755)
    return Layout("results/small")


def status(folder: Path) -> list[str]:
    """The lines of `make status`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts"), "PATH": f"{folder}:{os.environ['PATH']}"}
    result = warm.bettersynth("status", "--config", "small.yaml", folder=folder, environment=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def log(name: str, text: str) -> None:
    path = Path("logs/small") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_failures_of_an_earlier_run_are_not_shown(layout, tmp_path):
    log("dataset/wordy.log", "on n1\nValueError: no\n")
    log("dataset/wordy.1.log", "on n1\nValueError: no\n")
    log("score/pool/gpu-0c8500ac9080/stage_1-0000-0002.1.log", "on n1\n")
    assert any(line.startswith("failed   dataset wordy") for line in status(tmp_path))
    os.utime("logs/small/dataset/wordy.log", (time.time() - 9, time.time() - 9))
    driver.start(layout.driver, "", str(tmp_path)).release()
    lines = status(tmp_path)
    assert not any("failed" in line for line in lines)
    log("dataset/weak.log", "on n1\nValueError: no\n")
    assert any(line.startswith("failed   dataset weak") for line in status(tmp_path))


def test_before_a_run_everything_waits(layout, tmp_path):
    lines = status(tmp_path)
    assert lines[0] == "results/small: nobody runs it now"
    assert lines[2].split() == ["pool", "2", "waiting"]


def test_every_state_is_told_with_job_log_and_time_left(layout, tmp_path):
    write_json(layout.dataset_card("wordy"), {})
    write_json(layout.pretrain("best", 1) / "card.json", {"status": "stopped"})
    write_json(layout.pretrain("best", 2) / "card.json", {"status": "done"})
    log("pretrain/unfiltered/1.log", "on n1\nValueError: no rows\n")
    words = Fingerprints(load("small.yaml"), layout).operator("words_num")
    write_json(layout.scoring_pass("cpu-aab9dfe63d6c"), {"operators": {"words_num": words}})
    log("score/pool/cpu-aab9dfe63d6c/stage_1-0000-0002.log", "on n1\nMemoryError\n")
    write_json(layout.scoring_pass("cpu-0123456789ab"), {"operators": {"words_num": "of other parameters"}})
    log("score/pool/cpu-0123456789ab/stage_1-0000-0002.log", "on n1\nMemoryError\n")
    log("dataset/weak.log", "on n1\nweak: 20 of 60, 2.0/s, 20 s left\n")
    weak = Lease.acquire(layout.lease("logs/small/dataset/weak.log"))
    Path("snakemake.log").write_text("SLURM run ID: abc-1\n")
    driver = Lease.acquire(layout.driver, log="snakemake.log", command=["snakemake"])
    try:
        lines = status(tmp_path)
    finally:
        weak.release()
        driver.release()
    phases = {line.rpartition("  ")[0].strip(): line.rpartition("  ")[2] for line in lines[2:]}
    assert f"run by process {os.getpid()} on" in lines[0]
    assert phases["datasets"] == "1 done, 1 running, 4 waiting"
    assert phases["passes"] == "1 queued, 1 failed"
    assert phases["best: probe"] == "2 waiting" and "unfiltered: probe" not in phases
    assert phases["best: pretrain"] == "1 done, 1 stopped"
    assert phases["unfiltered: pretrain"] == "1 failed"
    details = "\n".join(lines)
    assert f"running  dataset weak: process {os.getpid()}" in details and "20 of 60, 2.0/s, 20 s left" in details
    assert "running  finetune unfiltered, seed 1: SLURM job 41 on n1 for 5:10" in details
    assert "queued   trainset best: SLURM job 42 pending (Resources)" in details
    assert "queued   score_neural stage_1-0000-0002 of pool: SLURM job 43 pending (Priority)" in details
    score_log = "logs/small/score/pool/cpu-aab9dfe63d6c/stage_1-0000-0002.log"
    assert f"failed   score_plain stage_1-0000-0002 of pool: see {score_log}" in details
    assert "failed   pretrain unfiltered, seed 1: see logs/small/pretrain/unfiltered/1.log" in details


def test_a_run_that_was_cut_off_is_called_so(layout, tmp_path):
    facts = {"log": "gone", "command": ["snakemake", "--configfile", "small.yaml"]}
    code = "from bettersynth.runtime.lease import *; "
    code += f"Lease.acquire(Path('results/small/driver.json'), **{facts}); os._exit(1)"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")})
    assert "to go on: make resume CONFIG=small.yaml" in status(tmp_path)[0]

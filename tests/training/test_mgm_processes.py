"""Several processes do what one does: a stage's result, and a benchmark's answers."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import GPUS
from safetensors.torch import load_file
from tiny_mgm import make_run

from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, write_json
from bettersynth.training.mgm import processes
from bettersynth.training.mgm.checkpoints import checkpoints
from bettersynth.training.mgm.processes import run

ASK = "bettersynth.evaluation.answering:ask"


@pytest.fixture
def start(tmp_path):
    """Configuration and layout of a run whose training set is in place."""

    def make(name: str, **training) -> tuple[Configuration, Layout]:
        folder = tmp_path / name
        folder.mkdir()
        configuration = make_run(folder, **training)
        layout = Layout(folder / "results")
        layout.trainset("tiny").parent.mkdir(parents=True)
        shutil.copy(folder / "captions.json", layout.trainset("tiny"))
        layout.held_out.parent.mkdir()
        shutil.copy(folder / "held_out.json", layout.held_out)
        return configuration, layout

    return make


def test_jobs_import_only_what_they_use():
    """Each does so anew, and on the miniature that is most of what answering costs."""
    program = (
        "import sys, bettersynth.training.mgm.generation; print({'transformers.trainer', 'pandas'} & set(sys.modules));"
        "import bettersynth.training.mgm.training; print({'datasets', 'pandas'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["set()", "set()"]


def test_two_processes_train_what_one_trains(start, capfd):
    stage = {"precision": "fp32", "device_batch": 1}
    results = []
    for count in (1, 2):
        configuration, layout = start(f"{count}", pretrain=stage, probe={"steps": 2}, held_out=True)
        run("pretrain", "tiny", 1, configuration, layout, processes=count)
        card = read_json(layout.pretrain("tiny", 1) / "card.json")
        assert (card["processes"], card["steps"], card["rows"]) == (count, 6, 24)
        losses = [card["last_loss"], *(each["loss"] for each in card["held_out"])]
        results.append((losses, load_file(layout.pretrain("tiny", 1) / "connector.safetensors")))
    (first_losses, first), (second_losses, second) = results
    assert len(first_losses) == 3 and second_losses == pytest.approx(first_losses, rel=1e-3)
    for name in first.keys() - {"aux_projector.0.bias", "aux_projector.1.bias"}:
        torch.testing.assert_close(first[name], second[name], rtol=1e-2, atol=2e-4)


def test_a_loss_that_is_no_number_ends_all_processes_on_record(start):
    configuration, layout = start("failing", pretrain={"learning_rate": 1e30, "device_batch": 1}, held_out=True)
    run("pretrain", "tiny", 1, configuration, layout, processes=2)
    card = read_json(layout.pretrain("tiny", 1) / "card.json")
    assert (card["status"], card["fate"], card["loss"]) == ("stopped", "failed", None)


def asking(configuration: Configuration, folder: Path) -> Configuration:
    """The configuration with seven questions about the images in `folder`."""
    words = ["what is this ?", "is it a red square ?", "what ?"]
    rows = [{"question_id": f"{n}", "image": f"{n % 8}.png", "text": words[n % 3]} for n in range(7)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    textvqa = {"questions": str(folder / "questions.jsonl"), "annotations": "none", "images": str(folder / "images")}
    evaluation = {"textvqa": textvqa | {"max_new_tokens": 6}, "batch": 2}
    asked = configuration.model_dump(by_alias=True) | {"evaluation": evaluation | {"precision": "fp32"}}
    return Configuration.model_validate(asked)


def test_two_processes_answer_what_one_answers(start):
    configuration, layout = start("asked")
    for stage in ("pretrain", "finetune"):
        run(stage, "tiny", 1, configuration, layout, processes=1)
    asked = asking(configuration, layout.root.parent)
    path, answers = layout.answers("tiny", 1, "textvqa"), []
    for count in (1, 2):
        shutil.rmtree(path.parent, ignore_errors=True)
        run(ASK, "tiny", 1, asked, layout, processes=count)
        answers.append(path.read_text())
    assert answers[0] == answers[1] and len(answers[0].splitlines()) == 7


def test_a_process_that_fails_fails_the_job_and_says_why(start, capfd):
    configuration, layout = start("broken")
    write_json(layout.trainset("tiny"), [])
    with pytest.raises(RuntimeError, match="pretrain in 2 processes ended with code 1"):
        run("pretrain", "tiny", 1, configuration, layout, processes=2)
    assert "fewer than one global batch" in capfd.readouterr().out
    assert not (layout.pretrain("tiny", 1) / "card.json").exists()


def test_several_nodes_are_refused_outside_of_slurm(start, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    configuration, layout = start("nodes")
    with pytest.raises(ValueError, match="asks for 2 nodes, which only SLURM has"):
        run("pretrain", "tiny", 1, configuration, layout, nodes=2)


@pytest.fixture
def srun(tmp_path, monkeypatch):
    """A job of SLURM on two nodes whose srun is this shell script; its arguments are torchrun's command."""

    def be(script: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "srun").write_text(f"#!/bin/sh\nwhile [ $1 != {sys.executable} ]; do shift; done\n{script}\n")
        (folder / "srun").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setenv("SLURM_JOB_ID", "4711")
        monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")

    return be


def test_torchruns_of_two_nodes_meet(start, srun):
    srun('"$@" & "$@"; wait')
    configuration, layout = start("meet", pretrain={"precision": "fp32", "device_batch": 1})
    run("pretrain", "tiny", 1, configuration, layout, processes=1, nodes=2)
    assert read_json(layout.pretrain("tiny", 1) / "card.json")["processes"] == 2


@pytest.mark.parametrize("count", [1, 2])
def test_processes_of_torchrun_train_and_answer_over_nccl(count, start, tmp_path):
    """Also one alone, by the way that several take."""
    if not torch.cuda.is_available() or len(GPUS) < count:
        pytest.skip(f"needs {count} GPU" + "s" * (count > 1))
    configuration, layout = start("nccl", pretrain={"device_batch": 2}, finetune={"device_batch": 2})
    path = tmp_path / "config.json"
    path.write_text(asking(configuration, layout.root.parent).model_dump_json(by_alias=True))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    module = ["--module", processes.__name__, "--config", path, "--results", layout.root]
    known = filter(None, [str(Path(__file__).parents[2] / "scripts"), os.environ.get("PYTHONPATH")])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(known),
        "NCCL_DEBUG": "VERSION",
        "CUDA_VISIBLE_DEVICES": ",".join(GPUS[:count]),
    }
    for work in ("pretrain", "finetune", ASK):
        command = [*torchrun, *module, work, "tiny", "1"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        assert f"{processes.MET}{count}" in done.stdout and "NCCL version" in done.stdout
    assert read_json(layout.pretrain("tiny", 1) / "card.json")["processes"] == count
    assert len(layout.answers("tiny", 1, "textvqa").read_text().splitlines()) == 7


@pytest.mark.parametrize(
    ("script", "began"),
    [
        ('exec "$@"', r"0 of 2 began\. "),  # the second node's torchrun never comes
        # srun itself ends, and what it started holds on to its output
        ("echo 'bettersynth-begun| process 0 on n1'; sleep 600", r"1 of 2 began \(process 0 on n1\)\. "),
    ],
)
def test_whoever_waits_in_vain_is_ended_and_the_job_says_who_came(start, srun, monkeypatch, script, began):
    srun(script)
    monkeypatch.setattr(processes, "MEETING_MINUTES", 0.1)
    configuration, layout = start("vain")
    since = time.monotonic()
    with pytest.raises(RuntimeError, match=rf"on each of 2 nodes: within 0\.1 minutes .* job on n\[1-2\], {began}"):
        run("pretrain", "tiny", 1, configuration, layout, processes=1, nodes=2)
    assert time.monotonic() - since < 60


def test_nodes_meet_at_a_port_that_nothing_uses(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "20004")
    usual = processes._meeting_place(2)[-1]
    port = int(usual.rpartition(":")[2])
    assert port in processes.PORTS and processes._meeting_place(2)[-1] == usual
    with socket.socket() as other:
        other.bind(("", port))
        assert processes._meeting_place(2)[-1].endswith(f":{port + 1}")


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_stage_killed_at_any_moment_goes_on_to_the_same_result(start, tmp_path, stage):
    results = []
    for name in ("whole", "killed"):
        configuration, layout = start(name, **{stage: {"save_steps": 2, "epochs": 5}})
        if stage == "finetune":
            run("pretrain", "tiny", 1, configuration, layout, processes=1)
        folder = getattr(layout, stage)("tiny", 1)
        if name == "killed":
            kill_after_checkpoint(stage, configuration, layout, folder, tmp_path)
        run(stage, "tiny", 1, configuration, layout, processes=1)
        card = read_json(folder / "card.json")
        assert card["steps"] == 30 and (card["resumed_from_step"] >= 4) == (name == "killed")
        results.append((card["sha256"], (folder / "log.jsonl").read_text()))
    assert results[0] == results[1]


def kill_after_checkpoint(stage: str, configuration: Configuration, layout: Layout, folder: Path, place: Path) -> None:
    """Start the stage as a process of its own, and kill it at a random moment after its second checkpoint."""
    delay = random.uniform(0, 0.2)
    print(f"killed {delay:.4f} s after its second checkpoint")  # shown by pytest when the test fails
    config = place / "config.json"
    config.write_text(configuration.model_dump_json(by_alias=True))
    scripts = Path(__file__).parents[2] / "scripts"
    command = [sys.executable, "-m", "bettersynth.training.mgm.processes", "--config", config, "--results", layout.root]
    process = subprocess.Popen([*command, stage, "tiny", "1"], env={**os.environ, "PYTHONPATH": str(scripts)})
    while not checkpoints(folder / "checkpoints") or checkpoints(folder / "checkpoints")[-1].name == "checkpoint-2":
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.003)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "card.json").exists()

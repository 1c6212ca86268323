"""Several processes do what one does: a stage's result, and a benchmark's answers."""

import json
import os
import random
import shutil
import signal
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
from bettersynth.training.mgm.meeting import PLACE, meeting_place
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
    """A job of SLURM on two nodes whose srun is this shell script; its arguments are a node's command."""

    def be(script: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "srun").write_text(f"#!/bin/sh\nwhile [ $1 != {sys.executable} ]; do shift; done\n{script}\n")
        (folder / "srun").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setenv("SLURM_JOB_ID", "4711")
        monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")

    return be


def test_processes_of_two_nodes_meet(start, srun):
    srun('SLURM_NODEID=1 "$@" & SLURM_NODEID=0 "$@"; wait')
    configuration, layout = start("meet", pretrain={"precision": "fp32", "device_batch": 1})
    run("pretrain", "tiny", 1, configuration, layout, processes=1, nodes=2)
    assert read_json(layout.pretrain("tiny", 1) / "card.json")["processes"] == 2


ATTACK = """
import base64, os, pathlib, pickle, sys, time, psutil
from torch.distributed import TCPStore
class Evil:
    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path(sys.argv[1]),)
state = base64.b64encode(pickle.dumps((Evil(), 1)))
parent = psutil.Process(os.getppid())
for _ in range(60):
    for end in psutil.net_connections("tcp"):
        if end.status == psutil.CONN_LISTEN and end.pid and end.pid != os.getpid():
            if "torch.distributed.run" in psutil.Process(end.pid).cmdline() or end.pid == parent.ppid():
                try:
                    host = end.laddr.ip.strip(":") or "127.0.0.1"
                    store = TCPStore(host, end.laddr.port, is_master=False, wait_for_workers=False)
                    store.set("torch.rendezvous.4711", state)
                    pathlib.Path(sys.argv[2]).touch()
                except Exception: pass
    time.sleep(0.1)
"""
"""What another person can do who reaches the ports: the place where torchrun keeps its pickled state is known."""


@pytest.mark.parametrize("nodes", [1, 2])
def test_nobody_else_has_a_say_in_a_meeting(start, srun, tmp_path, monkeypatch, nodes):
    (tmp_path / "attack.py").write_text(ATTACK)
    attack = f"{sys.executable} {tmp_path}/attack.py {tmp_path}/ran {tmp_path}/reached"
    srun(f'{attack} & SLURM_NODEID=1 "$@" & SLURM_NODEID=0 "$@"; wait')
    monkeypatch.setenv("MEETING_WORK", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[1] / 'support'}:{os.environ['PYTHONPATH']}")
    configuration, layout = start("said")
    run("meeting_work:say", "tiny", 1, configuration, layout, processes=2 // nodes, nodes=nodes)
    for process in range(2):
        said = json.loads((tmp_path / f"{process}.json").read_text())
        assert "not unpickled" in said["unpickles"]
        assert nodes > 1 or set(said["listens"]) <= {"127.0.0.1", "::1"}
    assert nodes == 1 or (tmp_path / "reached").exists(), "the attack reached no port"
    assert not (tmp_path / "ran").exists()


def test_a_meeting_place_is_closed_to_another_account(monkeypatch):
    with meeting_place(1) as place:
        store = Path(json.loads(place[PLACE])["file"])
        assert store.parent.stat().st_mode & 0o077 == 0
        if os.geteuid() == 0:
            command = ["sh", "-c", 'touch "$0" && ls "${0%/*}"', store]
            assert subprocess.run(command, user="nobody", capture_output=True, cwd="/").returncode != 0
    assert not store.parent.exists()


def test_ranks_that_a_platform_left_are_not_believed(start, monkeypatch):
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "192.0.2.1")):
        monkeypatch.setenv(name, value)
    configuration, layout = start("left")
    run("pretrain", "tiny", 1, configuration, layout, processes=1)
    assert read_json(layout.pretrain("tiny", 1) / "card.json")["processes"] == 1


def test_processes_train_and_answer_over_nccl(start, capfd, monkeypatch):
    if not torch.cuda.is_available() or len(GPUS) < 2:
        pytest.skip("needs 2 GPUs")
    configuration, layout = start("nccl", pretrain={"device_batch": 2}, finetune={"device_batch": 2})
    monkeypatch.setenv("NCCL_DEBUG", "VERSION")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(GPUS[:2]))
    asked = asking(configuration, layout.root.parent)
    for work in ("pretrain", "finetune", ASK):
        run(work, "tiny", 1, asked, layout, processes=2)
        assert "NCCL version" in capfd.readouterr().out
    assert read_json(layout.pretrain("tiny", 1) / "card.json")["processes"] == 2
    assert len(layout.answers("tiny", 1, "textvqa").read_text().splitlines()) == 7


@pytest.mark.parametrize(
    ("script", "began"),
    [
        ('SLURM_NODEID=0 exec "$@"', r"1 of 2 began \(process 0 on .*\)\. "),  # the second node never comes
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

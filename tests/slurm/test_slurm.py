"""The pipeline on a real SLURM of this machine, on its good days and its bad ones.

To save time everything runs at once: the whole workflow begins first, and its jobs live through what happens to others.
"""

from __future__ import annotations

import contextlib
import copy
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from workflow import CONFIGURATION, MODELS, ROOT

from bettersynth.configuration import configure, read_yaml
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json
from bettersynth.training.mgm import processes
from miniature.render import render_world
from tests.slurm.testbed import Testbed, missing

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.slurm,
    pytest.mark.skipif(os.environ.get("SLURM_TESTS") == "0", reason="left out by SLURM_TESTS=0"),
    pytest.mark.skipif(bool(missing()), reason=f"no SLURM: {missing()}"),
]

QUICK = ["--slurm-init-seconds-before-status-checks", "3", "--seconds-between-status-checks", "3"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Testbed]:
    """Three nodes of sixteen processors and eight GPUs."""
    with Testbed(nodes=3, gpus=8) as testbed:
        yield testbed


class OnCluster:
    """A folder in which a Snakefile runs by the profile `slurm`."""

    def __init__(self, folder: Path, name: str, snakefile: Path, *options: str) -> None:
        self.folder = folder
        self.configuration = folder / f"{name}.yaml"
        self.results = folder / "results" / name
        self.environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self.command = ["snakemake", "--profile", "slurm", "--snakefile", snakefile, "--directory", folder]
        self.command += ["--configfile", self.configuration, "--slurm-logdir", folder / "logs" / "slurm"]
        self.command += ["--latency-wait", "10", *QUICK, *options]

    def configure(self, configuration: dict[str, Any]) -> None:
        self.configuration.write_text(yaml.safe_dump(configuration, sort_keys=False))

    def start(self, *command: str | Path, output: str = "output") -> subprocess.Popen[str]:
        """Snakemake (or another command) at work; what it says is in the file `output`."""
        with (self.folder / output).open("w") as out:
            words = list(map(str, command or self.command))
            return subprocess.Popen(words, cwd=ROOT, env=self.environment, stdout=out, stderr=out, text=True)

    def said(self, output: str = "output") -> str:
        return (self.folder / output).read_text()


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """See to it that the process does not outlive its test."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(condition: Callable[[], Any], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.3)


def jobs_of(cluster: Testbed, rule: str, *fields: str) -> list[dict[str, str]]:
    """What accounting knows of a rule's jobs (or of one job of a rule), in their order."""
    names = ("JobIDRaw", "Comment", *fields)
    options = ["--allusers", "--allocations", "--noheader", "--parsable2", "--starttime=now-2hours"]
    lines = cluster.command("sacct", *options, f"--format={','.join(names)}").splitlines()
    jobs = [dict(zip(names, line.split("|"), strict=True)) for line in lines]
    return [job for job in jobs if re.fullmatch(rf"rule_{rule}(_wildcards_.*)?", job["Comment"])]


def mishap_jobs(cluster: Testbed, name: str, *fields: str) -> list[dict[str, str]]:
    return jobs_of(cluster, f"mishap_wildcards_{name}", *fields)


def queued(cluster: Testbed, *names: str) -> list[str]:
    """Those of the mishaps that are queued or running."""
    comments = cluster.command("squeue", "--noheader", "--format=%k").split()
    return [name for name in names if f"rule_mishap_wildcards_{name}" in comments]


# the whole workflow begins
OVER_NODES = {
    "gpu": 2,
    "nodes": 2,
    "slurm_extra": "--gpus-per-node=1",
    "mpi": "srun",
    "tasks": 2,
    "tasks_per_gpu": 0,
    "cpus_per_task": 4,
    "mem_mb": 8000,
    "runtime": 60,
}


@pytest.fixture(scope="module")
def workflow_begins(cluster, tmp_path_factory) -> Iterator[tuple[OnCluster, subprocess.Popen[str]]]:
    """One recipe, from raw pairs to the report; its stage 1 is trained over two nodes."""
    folder = tmp_path_factory.mktemp("good")
    render_world(folder / "data", records=40, second_records=4, textvqa=4, mmbench=3, instructions=16)
    configuration = copy.deepcopy(CONFIGURATION)
    del configuration["analyses"], configuration["recipes"]["unfiltered"]
    configuration["models"]["diffusion"] = {"path": str(MODELS / "diffusion")}
    configuration["redrawers"] = {"diffusion": {"model": "diffusion", "steps": 3, "size": 64}}
    configuration["datasets"]["drawn"] = {"from": "weak", "redraw": {"redrawer": "diffusion", "seed": 0}}
    configuration["exports"] = {"drawn": ["llava"]}
    configuration["pool"]["files"] = [{"name": "stage_1", "path": "data/mgm_pretrain_stage_1.jsonl", "shards": 2}]
    configuration["recipes"]["best"]["seeds"] = [1]
    configuration["training"]["pretrain"]["device_batch"] = 8
    profile = yaml.safe_load((ROOT / "profiles" / "default" / "config.yaml").read_text())
    profile["set-resources"] = {"pretrain": OVER_NODES}
    (folder / "profile").mkdir()
    (folder / "profile" / "config.yaml").write_text(yaml.safe_dump(profile))
    run = OnCluster(folder, "small", ROOT / "Snakefile", "--workflow-profile", folder / "profile")
    run.configure(configuration)
    with ended(run.start()) as snakemake:
        yield run, snakemake


# bad days
MISHAPS = ("cancelled", "slow", "hungry", "lost", "patient")


def mishaps(folder: Path, *names: str) -> OnCluster:
    targets = [f"results/mishaps/{name}.txt" for name in names]
    snakefile = ROOT / "tests" / "mishaps" / "Snakefile"
    run = OnCluster(folder, "mishaps", snakefile, "--default-resources", "mem_mb=1000 * attempt", "--", *targets)
    run.configure({**CONFIGURATION, "name": "mishaps"})
    return run


def starts(run: OnCluster, name: str) -> list[str]:
    """A line for each start of a mishap: SLURM's job id and the GPUs."""
    path = run.results / "starts" / name
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture(scope="module")
def mishaps_happen(workflow_begins, cluster, tmp_path_factory) -> Iterator[tuple[OnCluster, subprocess.Popen[str]]]:
    """A run on which much happens: a drain, a cancelled job, a node that crashes, a controller that restarts."""
    run = mishaps(tmp_path_factory.mktemp("mishaps"), *MISHAPS)
    every_node = ["scontrol", "update", "nodename=n1,n2,n3"]
    cluster.command(*every_node, "state=drain", "reason=test")
    with ended(run.start()) as snakemake:
        until(lambda: len(queued(cluster, *MISHAPS)) == len(MISHAPS))
        cluster.command(*every_node, "state=resume")
        until(lambda: all(starts(run, name) for name in MISHAPS))
        cancelled, lost = (starts(run, name)[0].split()[0] for name in ("cancelled", "lost"))
        cluster.command("scancel", cancelled)
        until(lambda: cancelled not in cluster.command("squeue", "--noheader", "--format=%i").split())
        cluster.crash_node(cluster.command("squeue", "--noheader", f"--jobs={lost}", "--format=%N").strip())
        cluster.stop_controller()
        time.sleep(10)
        cluster.start_controller()
        (run.folder / "release").touch()
        yield run, snakemake


def resume(run: OnCluster, *options: str) -> subprocess.Popen[str]:
    """`make resume`."""
    run.environment["PYTHONPATH"] = str(ROOT / "scripts")
    script = ["env", f"--chdir={run.folder}", sys.executable, "-m", "bettersynth", "resume"]
    return run.start(*script, "--config", run.configuration, *options, output="resumed")


def test_a_killed_snakemake_is_resumed_and_no_job_runs_twice(mishaps_happen, cluster, tmp_path):
    names = ("patient-a", "patient-b")
    run = mishaps(tmp_path, *names)
    with ended(run.start()):
        until(lambda: all(starts(run, name) for name in names))
    # what a person does, told of a lock: the jobs of the killed Snakemake must not be submitted a second time
    unlocked = run.start(run.command[0], "--unlock", *run.command[1:])
    assert unlocked.wait(600) == 0, run.said()
    with ended(run.start()) as again:
        assert again.wait(600) == 1, run.said()
    assert "still queued or running: SLURM job" in run.said() and "CANCEL=1" in run.said()

    with ended(resume(run)) as resumed:
        until(lambda: "Waiting for jobs of the run before: SLURM job" in run.said("resumed"))
        assert queued(cluster, *names) == list(names)
        (run.folder / "release").touch()
        assert resumed.wait(600) == 0, run.said("resumed")
    assert "Nothing to be done" in run.said("resumed")
    assert [len(starts(run, name)) for name in names] == [1, 1]


def test_jobs_of_a_killed_snakemake_are_cancelled_when_asked(mishaps_happen, cluster, tmp_path):
    names = ("patient-c", "patient-d")
    run = mishaps(tmp_path, *names)
    with ended(run.start()):
        until(lambda: queued(cluster, *names) == list(names))
    with ended(resume(run, "--cancel")) as resumed:
        until(lambda: "going on" in run.said("resumed"))
        (run.folder / "release").touch()
        assert resumed.wait(600) == 0, run.said("resumed")
    for name in names:
        states = [job["State"].partition(" ")[0] for job in mishap_jobs(cluster, name, "State")]
        assert states == ["CANCELLED", "COMPLETED"]
        assert (run.results / f"{name}.txt").exists()


def test_the_doctor_finds_nothing_to_change_but_what_is_too_large(mishaps_happen, cluster):
    command = [sys.executable, "-m", "bettersynth", "doctor"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "partition main (default): 2880 min; 3 × 16 CPUs, 200000 MB, 8 GPUs (h100)" in result.stdout
    changes = [line for line in result.stdout.splitlines() if line.startswith("CHANGE")]
    # the last attempt of stage 2 is longer than the partition allows, and the GPUs of this cluster are not real
    assert len(changes) == 2, result.stdout
    assert "attempt 3 of finetune: 4320 min" in changes[0] and "sees no GPU" in changes[1]


def test_stage_1_over_two_nodes_trains_what_one_process_trains(mishaps_happen, workflow_begins, monkeypatch):
    run, snakemake = workflow_begins
    layout, alone = Layout(run.results), Layout(run.folder / "results" / "alone")
    card = layout.pretrain("best", 1) / "card.json"
    until(lambda: card.exists() or snakemake.poll() is not None, seconds=1200)
    assert card.exists(), run.said()
    assert read_json(card)["processes"] == 2
    for place in (Layout.trainset, Layout.seeds):
        place(alone, "best").parent.mkdir(parents=True)
        shutil.copy(place(layout, "best"), place(alone, "best"))
    monkeypatch.chdir(run.folder)
    configuration = configure(read_yaml(run.configuration), run.configuration)
    processes.run("pretrain", "best", 1, configuration, alone)
    first, second = (load_file(place.pretrain("best", 1) / "connector.safetensors") for place in (layout, alone))
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-2, atol=2e-4, msg=name)


@pytest.fixture(scope="module")
def bad_day(mishaps_happen) -> OnCluster:
    """The run of mishaps at its end."""
    run, snakemake = mishaps_happen
    assert snakemake.wait(600) == 0, run.said()
    return run


def test_every_mishap_ends_with_its_file(bad_day, cluster):
    for name in MISHAPS:
        assert (bad_day.results / f"{name}.txt").read_text() == f"{name}\n"
    assert queued(cluster, *MISHAPS) == []


def test_only_those_that_ended_badly_are_done_again(bad_day):
    assert {name: len(starts(bad_day, name)) for name in MISHAPS} == {
        "cancelled": 2,
        "slow": 2,
        "hungry": 2,
        "lost": 2,
        "patient": 1,  # drained before, and the controller away in the middle
    }


@pytest.mark.parametrize(
    ("name", "state", "minutes"),
    [("slow", "TIMEOUT", (1, 2)), ("hungry", "(FAILED|OUT_OF_MEMORY)", (30, 60)), ("cancelled", "CANCELLED", (30, 60))],
)
def test_the_next_attempt_gets_more_time_and_memory(bad_day, cluster, name, state, minutes):
    first, second = mishap_jobs(cluster, name, "State", "TimelimitRaw", "ReqMem")
    assert re.match(state, first["State"]) and second["State"] == "COMPLETED"
    assert (first["TimelimitRaw"], second["TimelimitRaw"]) == tuple(map(str, minutes))
    assert (first["ReqMem"], second["ReqMem"]) == ("1000M", "2000M")


def test_the_job_of_a_lost_node_is_submitted_again_elsewhere(bad_day, cluster):
    first, second = mishap_jobs(cluster, "lost", "State", "NodeList")
    assert (first["State"], second["State"]) == ("NODE_FAIL", "COMPLETED")
    assert first["NodeList"] != second["NodeList"]


def test_every_job_ran_with_the_gpu_it_asked_for(bad_day):
    for name in MISHAPS:
        assert all(re.fullmatch(r"\d+ [0-7]", start) for start in starts(bad_day, name))


def test_after_a_bad_day_nothing_is_left_behind(bad_day):
    assert not (bad_day.results / "driver.json").exists()
    assert not [path for path in (bad_day.results / "leases").rglob("*") if path.is_file()]
    assert not list(bad_day.results.glob(".*.tmp"))


# the whole workflow
GPU_RULES = ("score_neural", "recaption", "redraw", "probe", "pretrain", "finetune", "answer")
FOLDERS = {"score_neural": "score", "recaption": "generate/rewritten", "redraw": "generate/drawn"}
"""Of the rules' logs, where they are not the rule's name and the recipe."""
CPU_RULES = ("ingest_stage_1", "score_plain", "trainset", "instructions", "questions", "preflight", "export")


@pytest.fixture(scope="module")
def good_day(workflow_begins) -> OnCluster:
    """The run of the workflow at its end."""
    run, snakemake = workflow_begins
    assert snakemake.wait(1200) == 0, run.said()
    return run


def test_the_workflow_runs_to_its_report_inside_its_allocations(good_day, cluster):
    assert (good_day.results / "report" / "index.html").stat().st_size > 10_000
    for rule in GPU_RULES:
        jobs = jobs_of(cluster, rule, "State", "AllocTRES")
        assert len(jobs) == len({job["Comment"] for job in jobs}) > 0, f"not once: {rule}"
        gpus = f"gres/gpu={2 if rule == 'pretrain' else 1},"
        assert all(job["State"] == "COMPLETED" and gpus in job["AllocTRES"] for job in jobs)
    assert [job["NNodes"] for job in jobs_of(cluster, "pretrain", "NNodes")] == ["2"]
    for rule in CPU_RULES:
        assert all("gpu" not in job["AllocTRES"] for job in jobs_of(cluster, rule, "AllocTRES"))


def test_each_log_names_the_job_and_the_gpu(good_day, cluster):
    for rule in GPU_RULES:
        folder = good_day.folder / "logs" / "small" / FOLDERS.get(rule, f"{rule}/best")
        first_lines = [path.read_text().splitlines()[0] for path in folder.rglob("*.log") if "/cpu-" not in str(path)]
        named = {re.search(r"SLURM_JOB_ID=(\d+) CUDA_VISIBLE_DEVICES=[0-7]$", line)[1] for line in first_lines}
        assert named == {job["JobIDRaw"] for job in jobs_of(cluster, rule)}


def test_light_rules_are_not_submitted(good_day, cluster):
    rules = {job["Comment"].removeprefix("rule_").partition("_wildcards")[0] for job in jobs_of(cluster, ".*")}
    assert rules - {"mishap"} == {*GPU_RULES, *CPU_RULES}


def test_jobs_of_a_local_executor_within_an_allocation_get_a_gpu_each(cluster, tmp_path):
    take = "import os, time; from bettersynth.runtime import gpus; gpus.take(1); "
    take += "print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep(3)"
    two = f'for n in 1 2; do {sys.executable} -c "{take}" & done; wait'
    allocated = cluster.command("srun", "--ntasks=1", "--gpus=2", "--mem=2000", "bash", "-c", two)
    assert len(set(re.findall(r"\d", allocated))) == 2 and "," not in allocated

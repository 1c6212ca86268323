"""Jobs of one workstation, or within one allocation, share its GPUs out."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bettersynth.runtime import gpus

TAKE = """
import os, sys, time
from bettersynth.runtime import gpus
gpus.take(int(sys.argv[1]), every=0.1)
print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
time.sleep(60)
"""


@pytest.fixture
def job(tmp_path):
    """Start a job that asks for GPUs of a machine that has three; what it got is its first line."""
    started = []

    def start(count: int, **environment: str) -> subprocess.Popen[str]:
        known = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        environment = {**known, "CUDA_VISIBLE_DEVICES": "0,1,5", "TMPDIR": str(tmp_path), **environment}
        command = [sys.executable, "-c", TAKE, str(count)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_every_job_gets_a_gpu_of_its_own_and_the_next_waits(job):
    first, second, third = (job(1) for _ in range(3))
    got = {process.stdout.readline().strip() for process in (first, second, third)}
    assert got == {"0", "1", "5"}
    fourth = job(1)
    assert fourth.stderr.readline() == "Waiting for 1 of 3 GPUs.\n"
    second.kill()
    assert fourth.stdout.readline().strip() in got


def test_a_job_of_several_gpus_holds_none_while_it_waits(job):
    one = job(1)
    one.stdout.readline()
    both = job(2)
    assert both.stdout.readline() == "1,5\n"
    three = job(3)
    three.stderr.readline()
    both.kill()
    assert job(1).stdout.readline() == "1\n"


def test_jobs_within_an_allocation_get_one_each_and_those_of_another_do_not_count(job):
    inside = [job(1, SLURM_JOB_ID="7") for _ in range(2)]
    assert {process.stdout.readline().strip() for process in inside} <= {"0", "1", "5"}
    assert len({job(3, SLURM_JOB_ID=number).stdout.readline() for number in ("8", "9")}) == 1
    assert job(1, SLURM_JOB_ID="7").stdout.readline().strip() in ("0", "1", "5")
    assert job(1, SLURM_JOB_ID="7").stderr.readline() == "Waiting for 1 of 3 GPUs.\n"


@pytest.mark.parametrize(
    ("count", "environment"),
    [(0, {}), (1, {"CUDA_VISIBLE_DEVICES": "5"}), (1, {"CUDA_VISIBLE_DEVICES": ""})],
)
def test_where_there_is_nothing_to_share_nothing_changes(job, count, environment):
    expected = environment.get("CUDA_VISIBLE_DEVICES", "0,1,5")
    assert job(count, **environment).stdout.readline().strip() == expected
    assert job(count, **environment).stdout.readline().strip() == expected


def test_more_gpus_than_there_are_is_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(ValueError, match="asks for 3 GPUs and there are 2"):
        gpus.take(3)

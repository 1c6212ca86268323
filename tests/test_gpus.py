"""Jobs of one machine share its GPUs out among themselves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
CLAIM = (
    "import os, sys\n"
    "from bettersynth.gpus import claim_gpu\n"
    "print(claim_gpu(), os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True)\n"
    "sys.stdin.read()\n"
)


@pytest.fixture
def job(tmp_path):
    """Starts a job that claims a GPU of those visible and holds it; returns the process and what it printed."""
    started = []

    def start(visible):
        environment = {**os.environ, "PYTHONPATH": str(SCRIPTS), "TMPDIR": str(tmp_path)}
        environment |= {"CUDA_VISIBLE_DEVICES": visible}
        process = subprocess.Popen(
            [sys.executable, "-c", CLAIM], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process, process.stdout.readline().split()

    yield start
    for process in started:
        process.communicate()


def test_each_job_sees_a_gpu_of_its_own(job):
    (_, first), (_, second) = job("0,2"), job("0,2")

    assert first == ["0", "0"]
    assert second == ["2", "2"]


def test_a_gpu_is_free_again_when_its_job_was_killed(job):
    process, _ = job("0,2")
    process.kill()
    process.wait()

    assert job("0,2")[1] == ["0", "0"]


def test_jobs_share_when_there_are_more_of_them_than_gpus(job):
    claimed = [job("0,2")[1][0] for _ in range(3)]

    assert claimed[:2] == ["0", "2"]
    assert claimed[2] in ("0", "2")


def test_the_only_gpu_is_left_as_it_is(job):
    assert job("GPU-1234")[1] == ["None", "GPU-1234"]

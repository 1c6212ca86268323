"""Jobs in surroundings that made them wait for ever: little shared memory, long paths, ranks that nobody started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from bettersynth.runtime.patches import torch_workers

ROOT = Path(__file__).parents[2]

JOB = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from bettersynth.runtime.job import RunningJob
snakemake = SimpleNamespace(
    threads=1, wildcards={}, params={}, input=[], output=[], resources={}, rule="none", log=["logs/test/none.log"],
    config={"name": "test", "pool": {"files": [{"name": "a", "path": "a.jsonl"}], "images": "."}},
)
RunningJob(snakemake)

import tiny_mgm
from bettersynth.core.layout import Layout
from bettersynth.training.mgm.training import probe
folder = Path("tiny")
folder.mkdir()
configuration = tiny_mgm.make_run(folder, keep=1, pretrain={"workers": 2})
layout = Layout(folder / "results")
layout.trainset("tiny").parent.mkdir(parents=True)
layout.trainset("tiny").write_bytes((folder / "captions.json").read_bytes())
layout.trainset_card("tiny").write_text("{}")
trained = probe("tiny", 1, configuration, layout)

import tiny_models
from bettersynth.runtime import patches
patches.prepare("cache", 10**8)
from bettersynth.configuration.pool import Model, Operator, Reading, Scoring
from bettersynth.core.records import Record, text_of
from bettersynth.operators.batched.scorer import BatchScorer
clip = Model(path=str(tiny_models.clip(folder / "clip")))
scorer = BatchScorer.load(
    {"similarity": (Operator(op="image_text_similarity_filter"), clip)},
    reading=Reading(), settings=Scoring(workers=2),
)
from bettersynth.operators.batched.stand_in import AsGiven
records = [Record(str(n), text_of("a dog"), [str(folder / "images" / f"{n % 8}.png")]) for n in range(64)]
scored = scorer.score(records, AsGiven())["similarity"]
Path("done.json").write_text(json.dumps([trained["processes"], trained["steps"], len(scored.stats)]))
"""


def run_job(folder, *before, **environment):
    """Train and score with worker processes in a job's process; what it wrote, and its log."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT / 'tests' / 'support'}", **environment}
    command = [*before, sys.executable, "-c", JOB]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    log = (folder / "logs" / "test" / "none.log").read_text() if (folder / "logs").exists() else ended.stderr
    assert ended.returncode == 0, log
    return (folder / "done.json").read_text(), log


@pytest.mark.models
@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("unshare"), reason="only root has a /dev/shm of its own")
def test_a_job_with_hardly_any_shared_memory_and_ranks_of_a_platform_goes_on(tmp_path):
    small = ["unshare", "--mount", "bash", "-c", 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"', "-"]
    ranks = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    done, log = run_job(tmp_path, *small, **ranks)
    assert done == "[1, 2, 64]" and "--shm-size" in log


@pytest.mark.models
def test_a_job_with_a_long_temporary_folder_goes_on(tmp_path):
    (long := tmp_path / ("temporary" * 8)).mkdir()
    done, log = run_job(tmp_path, TMPDIR=str(long))
    assert done == "[1, 2, 64]" and "TMPDIR of at most 75 characters" in log


class Silent(Dataset):
    """A picture on a file server that does not answer."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> torch.Tensor:
        time.sleep(5)
        return torch.zeros(1)


def test_workers_that_hand_nothing_over_end_the_job_with_what_to_do():
    loader = DataLoader(Silent(), num_workers=1, timeout=1)
    with pytest.raises(torch_workers.SilentWorkersError, match=r"scoring: none of 1 worker processes .*`workers: 0`"):
        next(torch_workers.waited(loader, "scoring"))

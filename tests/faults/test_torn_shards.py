"""A shard that we wrote loses its end: every reader says so, and what it names makes that one file again."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import chdir
from pathlib import Path

import pytest
from in_process import InProcess, do

from bettersynth.core.commands import CONFIG_FILE
from bettersynth.core.publish import sha256_file
from bettersynth.core.remedy import DamagedError
from bettersynth.core.tables import read_table
from bettersynth.inspect.audit import Audited, look_at_all
from bettersynth.workflow.run import Run

pytestmark = pytest.mark.models
TORN = {
    "pool/records/stage_1-0000.parquet": 1,
    "scores/pool/words_num/stage_1-0001-*.parquet": 40,
    "sources/rewritten/records/rewritten-0000.parquet": 700,
    "datasets/wordy/rows.parquet": 9,
}
"""Shards, and the bytes that each loses."""


@pytest.fixture(scope="module")
def place(whole_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("torn") / "run"
    shutil.copytree(whole_run, folder)
    os.environ[CONFIG_FILE] = "small.yaml"
    with chdir(folder):
        yield folder


@pytest.mark.parametrize("pattern", TORN)
def test_a_torn_shard_is_named_and_made_again_alone(place, pattern):
    results = Path("results/small")
    [path] = results.glob(pattern)
    shards = {
        shard: shard.stat().st_ino for shard in results.glob(f"{Path(pattern).parent}/*.parquet") if shard != path
    }
    whole = sha256_file(path)
    os.truncate(path, path.stat().st_size - TORN[pattern])
    with pytest.raises(DamagedError, match=r"make run CONFIG=small\.yaml"):
        read_table(path)
    run = Run.open("small.yaml")
    _, problems = look_at_all(Audited(run.configuration, run.layout, run.plan))
    assert problems[0].path == path
    subprocess.run(problems[0].command.partition(" && ")[0], shell=True, check=True)
    redone = [job.rule.name for job in InProcess(place).due() if do(job) is None]
    assert redone and sha256_file(path) == whole
    if "scores" in pattern:
        assert {shard: shard.stat().st_ino for shard in shards} == shards, "another shard was scored again"
    assert look_at_all(Audited(run.configuration, run.layout, run.plan))[1] == []

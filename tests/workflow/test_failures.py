"""A job that failed is done again by the next run, its log stays, and what another job made stays too."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from workflow import CONFIGURATION, Run

from miniature.render import render_world

pytestmark = pytest.mark.workflow

AHEAD_S = 2 * 24 * 3600

SPOILED = """
import os, sys
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith("small/pool") and "pool_index" in " ".join(sys.argv):
        if os.path.exists(f"{arguments[0]}/index.json"):
            raise OSError("the disk is gone")
sys.addaudithook(hook)
"""
"""Makes a job fail right after it has published its last file."""

HOLDER = """
import sys
from pathlib import Path
from bettersynth.runtime.lease import Lease
lease = Lease.acquire(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
"""

PUBLISHED_MEANWHILE = """
import sys
from pathlib import Path
def hook(event, arguments):
    if event == "os.listdir" and "pool_index" in " ".join(sys.argv):
        Path({index!r}).write_text("published by another\\n")
        Path({card!r}).write_text("published by another\\n")
sys.addaudithook(hook)
"""
"""Stands in for the holder of the lease, which publishes while the second job starts."""


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    render_world(folder / "data", records=12, second_records=4, textvqa=2, mmbench=2, instructions=2, faults=False)
    return folder


@pytest.fixture
def run(world, tmp_path) -> Run:
    return Run(world, copy.deepcopy(CONFIGURATION)).copy(tmp_path / "run")


def test_a_job_that_a_skewed_clock_fails_is_not_taken_for_finished(run):
    run.snakemake("ingest_stage_1", "ingest_stage_2")
    ahead = time.time() + AHEAD_S
    orders = sorted((run.results / "pool" / "files").glob("*.order.parquet"))
    for order in orders:  # as if written by a node whose clock is two days ahead
        os.utime(order, (ahead, ahead))
    failed = run.snakemake("pool", check=False)
    assert failed.returncode and "clock skew" in failed.stdout + failed.stderr
    assert run.would_run("pool") == {"pool_index": 1}, "Snakemake took the failed job for finished"
    assert run.snakemake("pool", check=False).returncode, "the clock is still wrong"
    for order in orders:
        os.utime(order)
    run.snakemake("pool")
    assert run.would_run("pool") == {}


def test_a_job_that_fails_after_it_published_is_done_again_and_its_log_stays(run):
    run.snakemake("pool")
    index = run.results / "pool" / "index.parquet"
    before = index.read_bytes()
    spoiled = run.folder / "spoiled"
    spoiled.mkdir()
    (spoiled / "sitecustomize.py").write_text(SPOILED)
    changed = copy.deepcopy(run.configuration)
    changed["pool"]["files"].reverse()
    run.configure(changed)
    failed = run.snakemake("pool", check=False, paths=[spoiled])
    assert failed.returncode and index.read_bytes() != before, "it failed after it had published"
    first = (run.folder / "logs" / "small" / "pool_index.log").read_text()
    assert run.would_run("pool") == {"pool_index": 1}
    run.snakemake("pool")
    assert run.would_run("pool") == {}
    logs = run.folder / "logs" / "small"
    assert {path.name for path in logs.glob("pool_index.*")} == {"pool_index.log", "pool_index.1.log"}
    assert (logs / "pool_index.1.log").read_text() == first and "the disk is gone" in first


def test_what_another_job_published_stays(run):
    """The lease is held, so the job touches nothing; what its holder then publishes is done."""
    run.snakemake("ingest_stage_1", "ingest_stage_2")
    card, index = run.results / "pool" / "index.json", run.results / "pool" / "index.parquet"
    command = [sys.executable, "-c", HOLDER, run.results / "leases" / "pool_index.json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        holder.stdout.readline()
        (run.folder / "spoiled").mkdir()
        (run.folder / "spoiled" / "sitecustomize.py").write_text(
            PUBLISHED_MEANWHILE.format(card=str(card), index=str(index))
        )
        failed = run.snakemake("pool", check=False, paths=[run.folder / "spoiled"])
        holder.communicate("end\n")
    assert failed.returncode and "Another job writes this already" in failed.stderr
    assert card.read_text() == "published by another\n" and run.would_run("pool") == {}

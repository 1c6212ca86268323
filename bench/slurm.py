"""Submissions and overhead of 410 scoring shards on a SLURM of this machine: in chunks, and one shard a job."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from PIL import Image

from bench import ROOT
from tests.slurm.testbed import Testbed

QUICK = ("--slurm-init-seconds-before-status-checks", "5", "--latency-wait", "10")
"""Jobs are shorter here than those that the profile is made for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--shards", type=int, default=410, help="shards of one record each (default: %(default)s)")
    parser.add_argument("--alone", type=int, default=24, help="of them scored one a job, too (default: %(default)s)")


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Score the words of tiny records: what time it takes is the submissions', not the operator's.

    Scoring one shard a job is measured on a part of the shards; the machine's cores bound both ways alike.
    """
    with Testbed():
        calls, seconds = score(options.shards, shards_per_job=16)
        alone_calls, alone_seconds = score(options.alone, shards_per_job=1)
    return {
        "shards": options.shards,
        "sbatch_calls": calls,
        "seconds": round(seconds, 1),
        "per_shard_seconds": round(seconds / options.shards, 2),
        "alone_shards": options.alone,
        "alone_sbatch_calls": alone_calls,
        "alone_seconds": round(alone_seconds, 1),
        "alone_per_shard_seconds": round(alone_seconds / options.alone, 2),
    }


def score(shards: int, shards_per_job: int) -> tuple[int, float]:
    """Score a pool of so many shards on the cluster: calls of sbatch, and seconds from the first command to the end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pool(folder, shards, shards_per_job)
        snakemake(folder, "--cores", "2", "pool")
        started = time.monotonic()
        said = snakemake(folder, "--profile", "slurm", *QUICK, "--slurm-logdir", str(folder / "slurm"), "scores")
        return said.count("has been submitted with SLURM jobid"), time.monotonic() - started


def write_pool(folder: Path, shards: int, shards_per_job: int) -> None:
    """A pool of one record a shard, and the configuration `speed.yaml` that scores its words."""
    (folder / "images").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "images" / "grey.png")
    records = (
        {"id": f"{number:06d}", "text": f"<__dj__image>\nnumber {number} <|__dj__eoc|>", "images": ["images/grey.png"]}
        for number in range(shards)
    )
    (folder / "pairs.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    configuration = {
        "pool": {"files": [{"name": "pairs", "path": "pairs.jsonl", "shards": shards}], "images": "."},
        "operators": {"words_num": {"op": "words_num_filter"}},
        "datasets": {"wordy": {"from": "pool", "filter": {"words_num": {"min": 1}}}},
        "scoring": {"shards_per_job": shards_per_job},
    }
    (folder / "speed.yaml").write_text(yaml.safe_dump(configuration))


def snakemake(folder: Path, *arguments: str) -> str:
    """What a call of Snakemake says. Raises RuntimeError with it when the call fails."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += ["--configfile", str(folder / "speed.yaml"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stdout}{result.stderr}")
    return result.stdout + result.stderr

"""Jobs are forked from one process with their imports behind it, and end as those that start a Python of their own."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from workflow import ROOT

pytestmark = pytest.mark.workflow

SNAKEFILE = """
from bettersynth.runtime.patches.forked_jobs import fork_jobs

onstart:
    fork_jobs(["colorsys"])

rule job:
    output: "{name}.txt"
    threads: lambda wildcards: 2 if wildcards.name == "threads" else 1
    benchmark: "{name}.tsv"
    script: "job.py"
"""
SCRIPT = """
import os, signal, sys, tempfile
from pathlib import Path

name = snakemake.wildcards.name
if name == "raises":
    raise ValueError("what the job says")
if name == "exits":
    sys.exit("what the job says at last")
if name == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
known = "colorsys" in sys.modules
threads = os.environ["OMP_NUM_THREADS"]
Path(snakemake.output[0]).write_text(f"{os.getppid()} {known} {threads} {Path.cwd()} {sys.argv[0].endswith('job.py')}")
"""


def snakemake(*arguments, folder):
    """What comes of a Snakemake with a process of its own for its jobs."""
    command = [Path(sys.executable).with_name("snakemake"), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_jobs_are_forked_from_one_process_and_end_as_others(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "job.py").write_text(SCRIPT)
    good, bad = [f"n{number}" for number in range(12)] + ["threads"], ["raises", "exits", "killed"]
    profile = ["--workflow-profile", ROOT / "profiles" / "default"]
    targets = [f"{name}.txt" for name in good + bad]
    ended = snakemake("--cores", 4, *profile, "--", *targets, folder=tmp_path)
    assert ended.returncode == 1
    assert "what the job says\n" in ended.stderr and "what the job says at last" in ended.stderr
    said = {name: (tmp_path / f"{name}.txt").read_text().split() for name in good}
    own = said.pop("threads")
    assert {tuple(words) for words in said.values()} == {(said["n0"][0], "True", "1", str(tmp_path), "True")}
    assert own[0] != said["n0"][0] and own[1:3] == ["False", "2"], "with several threads, a Python of its own"
    assert not [name for name in bad if Path(tmp_path, f"{name}.txt").exists()]
    rows = [list(csv.DictReader((tmp_path / f"{name}.tsv").open(), delimiter="\t")) for name in good]
    assert all(float(row[0]["s"]) >= 0 for row in rows)


def test_ready_jobs_are_looked_at_when_a_job_ends_and_not_each_second(tmp_path):
    told = "    from bettersynth.runtime import driver\n    driver.look_when_jobs_end(workflow.scheduler)\n"
    (tmp_path / "Snakefile").write_text(SNAKEFILE.replace("onstart:\n", f"onstart:\n{told}"))
    (tmp_path / "job.py").write_text(f"import time\ntime.sleep(1.5)\n{SCRIPT}")
    ended = snakemake("--cores", 1, "--verbose", "--", "a.txt", "b.txt", "c.txt", folder=tmp_path)
    assert ended.returncode == 0 and (ended.stdout + ended.stderr).count("Ready jobs:") == 3

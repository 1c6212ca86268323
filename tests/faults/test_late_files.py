"""A shared file system shows a node's file after the job has ended: it is waited for, and nothing runs twice."""

from __future__ import annotations

import sys

import pytest
import warm
import yaml
from workflow import ROOT

SECONDS = 3
SNAKEFILE = """
rule all:
    input: "late.txt"

rule late:
    output: "late.txt"
    shell: "echo started >> starts; (sleep {seconds}; echo made > late.txt) > seen 2>&1 &"
"""
"""A job that has ended before anybody here sees its file."""


@pytest.mark.workflow
@pytest.mark.parametrize("patience", ["profile", pytest.param("none", marks=pytest.mark.faults)])
def test_a_file_that_appears_late_is_waited_for_and_not_made_twice(tmp_path, patience):
    (tmp_path / "Snakefile").write_text(SNAKEFILE.replace("{seconds}", str(SECONDS)))
    profile = yaml.safe_load((ROOT / "profiles" / "slurm" / "config.yaml").read_text(encoding="utf-8"))
    wait = profile["latency-wait"] if patience == "profile" else 0
    options = ["--cores", "1", "--latency-wait", str(wait), "--retries", profile["retries"]]
    environment = {"PATH": f"{sys.exec_prefix}/bin:/usr/bin:/bin", "HOME": str(tmp_path)}
    done = warm.snakemake(*options, folder=tmp_path, environment=environment)
    starts = (tmp_path / "starts").read_text().split()
    if patience == "profile":
        assert done.returncode == 0, done.stderr
        assert starts == ["started"] and (tmp_path / "late.txt").read_text() == "made\n"
    else:
        assert done.returncode, "without patience the file would have been missed, so this test would notice"

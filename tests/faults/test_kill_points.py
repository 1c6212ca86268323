"""Jobs that are killed at any step: after a plain rerun the tree is that of a run that nobody disturbed."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_process import InProcess, whole_configuration
from light import light_configuration
from workflow import ROOT


def killed(folder: Path, content: dict[str, Any], note: Callable[[str, float], None], most: int, *rules: str) -> None:
    """Every job of a configuration, or those of some rules, each at so many points (0: all) and at a moment."""
    run = InProcess.rendered(folder / "run", content)
    command = [sys.executable, str(ROOT / "tests" / "support" / "kill_points.py"), str(run.folder)]
    command += ["--most", str(most), "--moments", "1", "--rules", *rules]
    paths = os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT / "tests" / "support")])
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # threads do not come along to a forked process
    done = subprocess.run(
        command, env=os.environ | threads | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    tried, survived = (sum(found[name].values()) for name in ("tried", "survived"))
    print(f"killed at {tried} points of {len(found['tried'])} rules: {found['tried']}; survived {survived}")
    note("kill_points", tried)
    note("kill_points_survived", survived)
    assert done.returncode == 0 and tried == survived > 0, done.stderr


def test_a_job_killed_anywhere_is_done_by_the_next_run(tmp_path, record_property):
    content = copy.deepcopy(light_configuration()) | {"name": "small"}
    killed(tmp_path, content, record_property, 3, "ingest", "score_plain", "dataset")


@pytest.mark.faults
def test_every_job_of_a_whole_run(tmp_path, record_property):
    killed(tmp_path, whole_configuration(), record_property, int(os.environ.get("FAULTS_POINTS", "0")))

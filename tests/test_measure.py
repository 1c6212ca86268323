"""The benchmarks: each can be called by its name and keeps its figures with what they come from."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bettersynth.measure import MEASUREMENTS, ROOT, record
from bettersynth.publish import read_json

MEASURE = [sys.executable, str(ROOT / "scripts" / "measure.py")]


def test_figures_are_kept_in_order_with_their_command_commit_and_machine(tmp_path):
    path = tmp_path / "speed.json"
    record(path, "python scripts/measure.py speed", {"second_per_s": 2.5, "first_mb": 1})
    kept = read_json(path)
    assert list(kept) == ["command", "commit", "date", "machine", "figures"]
    assert list(kept["figures"].items()) == [("second_per_s", 2.5), ("first_mb", 1)]
    assert "CPU" in kept["machine"] and "cores" in kept["machine"]


def test_every_benchmark_says_what_it_measures():
    listed = subprocess.run([*MEASURE, "--help"], capture_output=True, text=True, check=True).stdout
    for module in (ROOT / "scripts" / "bettersynth" / "measure").glob("[!_]*.py"):
        assert module.stem.replace("_", "-") in listed


@pytest.mark.parametrize("path", sorted(MEASUREMENTS.glob("*.json")), ids=lambda path: path.stem)
def test_kept_figures_are_numbers_and_say_where_they_come_from(path):
    kept = read_json(path)
    assert {"command", "commit", "date", "machine", "figures"} <= kept.keys()
    assert all(isinstance(value, (int, float)) for value in kept["figures"].values())


@pytest.mark.workflow
def test_a_dry_run_is_timed_without_the_inputs(tmp_path):
    out = tmp_path / "dry-run.json"
    config = ROOT / "config" / "miniature.yaml"
    subprocess.run([*MEASURE, "dry-run", "--config", config, "--out", out], check=True, cwd=tmp_path)
    figures = read_json(out)["figures"]
    assert figures["recipes"] == 4 and figures["jobs"] > 100
    assert 0 < figures["second_seconds"] < 60 and figures["peak_mb"] > 20

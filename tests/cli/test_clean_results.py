"""`make clean-results`: what it deletes, what it refuses, and that it asks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from workflow import ROOT

from bettersynth.runtime.lease import Lease

FOLDERS = ("results", "logs", "benchmarks")


@pytest.fixture
def checkout(tmp_path):
    """A folder like the repository, with results of two configurations and of one more that is a link."""
    for name in ("Makefile", "scripts", ".venv"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "config").mkdir()
    for name in ("first", "second"):
        (tmp_path / "config" / f"{name}.yaml").write_text("pool: {files: [{name: a, path: a.jsonl}], images: .}\n")
        for folder in FOLDERS:
            (tmp_path / folder / name).mkdir(parents=True)
            (tmp_path / folder / name / "file").write_text("kept")
    return tmp_path


def clean(checkout, config, *more, answer=None):
    command = ["make", "--no-print-directory", "clean-results", f"CONFIG={config}", *more]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        command, cwd=checkout, env=environment, input=answer, capture_output=True, text=True, timeout=60
    )


def left(checkout):
    return {name for name in ("first", "second") for folder in FOLDERS if (checkout / folder / name / "file").exists()}


def test_it_names_what_it_deletes_and_asks(checkout):
    asked = clean(checkout, "config/first.yaml", answer="")
    assert asked.returncode and "results/first: 1 files" in asked.stdout and "YES=1" in asked.stderr
    assert left(checkout) == {"first", "second"}
    assert clean(checkout, "config/first.yaml", "YES=1").returncode == 0
    assert left(checkout) == {"second"} and not any((checkout / folder / "first").exists() for folder in FOLDERS)


@pytest.mark.parametrize("config", ["", "config/", "config/none.yaml"])
def test_an_empty_or_odd_name_deletes_nothing(checkout, config):
    refused = clean(checkout, config, "YES=1")
    assert refused.returncode and "Traceback" not in refused.stderr
    assert left(checkout) == {"first", "second"}


def test_a_run_that_is_on_and_results_of_another_are_left_alone(checkout, tmp_path_factory):
    lease = Lease.acquire(checkout / "results" / "first" / "driver.json", log="log", command=[])
    refused = clean(checkout, "config/first.yaml", "YES=1")
    lease.release()
    assert refused.returncode and "is being run" in refused.stderr

    claim = {"file": "config/second.yaml"}
    (checkout / "results" / "first" / "configuration.json").write_text(json.dumps(claim))
    refused = clean(checkout, "config/first.yaml", "YES=1")
    assert refused.returncode and "holds the results of config/second.yaml" in refused.stderr

    far = tmp_path_factory.mktemp("far")
    (checkout / "logs" / "second").rename(far / "second")
    (checkout / "logs" / "second").symlink_to(far / "second")
    refused = clean(checkout, "config/second.yaml", "YES=1")
    assert refused.returncode and "logs/second is a link to" in refused.stderr
    assert left(checkout) == {"first", "second"}

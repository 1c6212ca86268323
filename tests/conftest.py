"""What every test file starts from."""

import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from bettersynth.runtime import gpus

ROOT = Path(__file__).resolve().parent.parent
os.environ["PYTHONPATH"] = f"{ROOT / 'scripts'}{os.pathsep}{ROOT}"  # as in the Makefile, for what tests start
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported; for tiny models, threads only spin
os.environ.pop("BETTERSYNTH_CONFIG", None)  # `make test` has one, which would be the configuration that messages name

GPUS = os.environ.setdefault("BETTERSYNTH_TEST_GPUS", ",".join(gpus.visible())).split(",")
"""All of this machine's, or ""; a worker of xdist has them from its parent.

A test sees the first: a process that trains refuses several, and jobs that a test starts would share them out.
"""
if GPUS[0]:
    os.environ["CUDA_VISIBLE_DEVICES"] = GPUS[0]


LOADS_MODELS = {"operators", "sources", "training", "miniature"}
"""Packages whose tests nearly all load models."""

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


SECONDS = ROOT / "tests" / "seconds.json"
"""How long each file's tests take, written by `WRITE_SECONDS=1 make test`."""

taken: Counter[str] = Counter()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of packages that load models, for `make test-quick`; several workers begin with the longest files.

    A file that is not known yet is taken for a long one: what comes last should be short.
    """
    for item in items:
        if item.path.parent.name in LOADS_MODELS:
            item.add_marker("models")
    if hasattr(config, "workerinput"):
        seconds = json.loads(SECONDS.read_text())
        items.sort(key=lambda item: -seconds.get(item.nodeid.partition("::")[0], math.inf))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add a test's seconds to its file's."""
    taken[report.nodeid.partition("::")[0]] += report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write down what each file took, if that is wished."""
    if os.environ.get("WRITE_SECONDS") and not hasattr(session.config, "workerinput"):
        SECONDS.write_text(
            json.dumps({file: round(seconds, 1) for file, seconds in taken.most_common()}, indent=1) + "\n"
        )


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with a file of every kind, made once for all workers; copy what you change."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "whole_run"
    with FileLock(f"{folder}.lock"):
        if not (folder / "finished").exists():
            command = [sys.executable, str(ROOT / "tests" / "support" / "in_process.py"), str(folder)]
            paths = os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT / "tests" / "support")])
            done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            (folder / "finished").touch()
    return folder


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """Variables that a file's tests set (operators switch libraries offline for good) do not reach the next file."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)

"""Tests notice when a protection is gone: each is taken out of a copy of the project, and its tests have to fail."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mutations import MUTATIONS, Mutation
from workflow import ROOT

COPIED = ("scripts", "tests", "miniature", "bench", "config", "pyproject.toml")
LINKED = ("resources", "models", ".venv", "Snakefile", "rules", "profiles", "Makefile", "envs")

MISSED_ONCE = {
    "publish by rename",
    "sha256 of score shards",
    "the handler of SIGTERM",
    "a journal's torn line is cut off",
    "fsync of a published file",
}
"""Those whose loss no test noticed, until each had its own; the others are tried by `make test-faults`."""


def cases() -> list[object]:
    """Every mutation; most are of the long form."""
    marks = {mutation: () if mutation.name in MISSED_ONCE else (pytest.mark.faults,) for mutation in MUTATIONS}
    return [pytest.param(mutation, id=mutation.name, marks=mark) for mutation, mark in marks.items()]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project."""
    folder = tmp_path_factory.mktemp("mutated")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    return folder


def outcome(project: Path, tests: str) -> str:
    """The last line of pytest about these tests: how many passed and failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider", *shlex.split(tests)]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTEST_ADDOPTS")}
    environment["PYTHONPATH"] = f"{project / 'scripts'}{os.pathsep}{project}"
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines() or [done.stderr]
    return next((line for line in reversed(lines) if re.search(r"\d (passed|failed|error)", line)), lines[-1])


@pytest.mark.parametrize("mutation", cases())
def test_a_protection_that_is_gone_is_missed(project, mutation: Mutation):
    path = project / "scripts" / "bettersynth" / mutation.file
    whole = path.read_text(encoding="utf-8")
    assert whole.count(mutation.old) == 1, f"{mutation.file} has changed: {mutation.old!r} is not there once"
    path.write_text(whole.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        found = outcome(project, mutation.tests)
    finally:
        path.write_text(whole, encoding="utf-8")
    assert re.search(r"\d failed", found) and "error" not in found, f"{mutation.tests} without it: {found}"

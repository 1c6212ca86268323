"""`make audit`: a corruption of every kind of file is found, and named with the command that mends it."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import chdir
from pathlib import Path

import pytest
from click.testing import CliRunner
from corruptions import CORRUPTIONS, Corruption
from in_process import InProcess, do

from bettersynth.cli.audit import command
from bettersynth.core.commands import CONFIG_FILE
from bettersynth.core.digests import digest
from bettersynth.inspect.audit import Audited, every_link, look_at_all
from bettersynth.workflow.manifest import Problem
from bettersynth.workflow.run import Run

pytestmark = pytest.mark.models
RESULTS = Path("results/small")


@pytest.fixture(scope="module")
def place(whole_run, tmp_path_factory):
    """The finished run, copied; tests are in its folder, and leave it as it was."""
    folder = tmp_path_factory.mktemp("audited") / "run"
    shutil.copytree(whole_run, folder)
    os.environ[CONFIG_FILE] = "small.yaml"  # as the commands and the Snakefile have it
    with chdir(folder):
        yield folder


def audited(**options) -> Audited:
    run = Run.open("small.yaml")
    return Audited(run.configuration, run.layout, run.plan, **options)


def problems(**options) -> list[Problem]:
    return look_at_all(audited(**options))[1]


def test_a_run_that_nobody_touched_holds_by_every_link(place):
    assert problems() == []
    assert len(every_link(audited())) > 70
    done = CliRunner().invoke(command, ["--config", "small.yaml", "--all-bytes"])
    assert done.exit_code == 0 and "links of results/small hold" in done.output


@pytest.fixture
def harmed(place):
    """Does a corruption; afterwards all is as it was."""
    undone = []

    def harm(corruption: Corruption) -> Path:
        path = corruption.file(RESULTS)
        assert path is not None, f"the run has no {corruption.kind}: {corruption.pattern}"
        undone.append((path, path.read_bytes(), path.stat()))
        corruption.harm(path)
        assert not path.exists() or path.read_bytes() != undone[-1][1], "nothing was harmed"
        return path

    yield harm
    for path, content, state in undone:
        path.write_bytes(content)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda corruption: corruption.kind)
def test_a_corruption_is_found_and_named_first(harmed, corruption):
    path = harmed(corruption)
    found = problems()
    assert found, f"{path}: nobody noticed"
    assert path == found[0].path or found[0].path in path.parents, found[0]
    assert str(found[0].path) in found[0].command and found[0].command.startswith("rm ")


MENDED = ("rows of a dataset", "scores of a shard, gone", "records of the pool", "answers", "connector", "result")


@pytest.mark.parametrize("kind", MENDED)
def test_the_command_that_it_names_mends_it(place, harmed, kind, tmp_path):
    [corruption] = [corruption for corruption in CORRUPTIONS if corruption.kind == kind]
    path = harmed(corruption)
    whole = tmp_path / "whole"
    shutil.copytree(place, whole)
    with chdir(whole):
        removed, _, run = problems()[0].command.partition(" && ")
        assert run == "make run CONFIG=small.yaml"
        subprocess.run(removed, shell=True, check=True)
        mended = InProcess(whole)
        redone = [job for job in mended.due() if do(job) is None]
        names = [(job.rule.name, *job.wildcards.values()) for job in redone]
        assert redone and problems() == [], names
        assert path.exists()


def test_what_changed_since_is_no_damage_and_the_next_run_mends_it(place):
    raw = Path("data/mgm_pretrain_stage_1.jsonl")
    before = raw.read_bytes()
    raw.write_bytes(before + before.splitlines(keepends=True)[0].replace(b'"id": "', b'"id": "new'))
    try:
        first = problems()[0]
        assert first.path == RESULTS / "pool" / "files" / "stage_1.json" and "another data/" in first.what
        assert first.command == "make run CONFIG=small.yaml"
    finally:
        raw.write_bytes(before)


def test_the_command_names_the_first_and_ends_badly(harmed):
    path = harmed(next(one for one in CORRUPTIONS if one.kind == "rows of a dataset"))
    done = CliRunner().invoke(command, ["--config", "small.yaml"])
    assert done.exit_code == 1
    assert done.output.startswith(f"{path}: ") and f"the first in {path}" in done.output


def test_a_byte_that_rots_without_a_trace_is_found_when_every_byte_is_read(harmed, monkeypatch):
    """What changes beneath the file system has neither time nor size changed: a remembered digest does not tell."""
    corruption = next(one for one in CORRUPTIONS if one.kind == "connector")
    path = corruption.file(RESULTS)
    remembered = audited().sha256(path)
    harmed(corruption)
    known = {path: remembered}
    monkeypatch.setattr("bettersynth.inspect.audit.links.digest", lambda file: known.get(file) or digest(file))
    assert problems() == []
    assert problems(all_bytes=True)[0].path == path

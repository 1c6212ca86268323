"""A full disk: what is finished stays whole, nothing half-made stays, and the run goes on once there is room."""

from __future__ import annotations

import copy
import errno
import re
import subprocess
from contextlib import chdir
from types import SimpleNamespace

import pytest
from in_process import InProcess, do, whole_configuration
from light import light_configuration
from odd_disks import cannot_mount, small_disk
from surviving import data_of, leftovers
from workflow import Run

from bettersynth.inspect import room
from bettersynth.inspect.cost import Costs
from bettersynth.workflow.jobs import Job
from miniature.render import render_world

TOO_SMALL = [
    *(("size", kilobytes) for kilobytes in (48, 96)),
    ("nr_inodes", 25),
    *(pytest.param("size", kilobytes, marks=pytest.mark.faults) for kilobytes in (16, 32, 64, 128)),
    *(pytest.param("nr_inodes", count, marks=pytest.mark.faults) for count in (8, 15, 35)),
]
"""Disks, by room and by the number of files."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> InProcess:
    """A run that had room."""
    configuration = copy.deepcopy(light_configuration()) | {"name": "small"}
    return InProcess.rendered(tmp_path_factory.mktemp("room"), configuration).finish()


@pytest.mark.skipif(bool(why := cannot_mount("mount", "umount")), reason=f"no small disk can be mounted here: {why}")
@pytest.mark.parametrize(("what", "size"), TOO_SMALL)
def test_a_full_disk_leaves_what_is_finished_and_the_run_goes_on(whole, tmp_path, what, size):
    run = InProcess(tmp_path)
    for name in ("data", "small.yaml"):
        (tmp_path / name).symlink_to(whole.folder / name)
    with small_disk(tmp_path / "results", 1 << 20) as disk, chdir(tmp_path):
        limit = f"{what}={size}k" if what == "size" else f"{what}={size}"
        subprocess.run(["mount", "-o", f"remount,{limit}", disk], check=True)
        with pytest.raises(OSError) as failed:
            for job in run.due():
                do(job)
        assert failed.value.errno == errno.ENOSPC
        assert leftovers(run.results) == []
        expected = data_of(whole.results)
        assert data_of(run.results).items() <= expected.items(), "a finished file is not whole"
        subprocess.run(["mount", "-o", "remount,size=64m,nr_inodes=9999", disk], check=True)
        run.finish()
        assert data_of(run.results) == expected


@pytest.fixture
def planned(tmp_path, monkeypatch) -> tuple[list[Job], Costs]:
    """The jobs of a whole run that is still to be made, and what they cost on a machine without a GPU."""
    monkeypatch.chdir(tmp_path)
    run = InProcess(tmp_path).configure(whole_configuration())
    render_world(tmp_path / "data", records=12, second_records=4, textvqa=2, mmbench=2, instructions=2, faults=False)
    jobs = run.jobs()
    return [job for rule in jobs for job in rule.jobs()], Costs(jobs, "docs/measurements", has_gpus=False)


def test_a_run_that_does_not_fit_is_refused_before_it_starts(planned, monkeypatch):
    due, costs = planned
    said = room.look(due, costs, "small.yaml", here=True)
    assert re.match(
        r"This run will leave about \d+ MB on the disk, where .* are free; its largest job \(.*\) takes", said
    )
    assert "memory" not in room.look(due, costs, "small.yaml", here=False), "a cluster's jobs run elsewhere"

    monkeypatch.setattr(room, "memory_there", lambda: 100_000_000)
    with pytest.raises(room.RoomError, match=r"of 100 MB memory\. Run it on a larger machine.* ROOM=any"):
        room.look(due, costs, "small.yaml", here=True)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(
        room.RoomError, match=r"1\.0 MB are free.* Most of it: \w+.*make gc.*CONFIG=small\.yaml ROOM=any"
    ):
        room.look(due, costs, "small.yaml", here=True)
    monkeypatch.setenv(room.ROOM, "any")
    assert "1.0 MB are free" in room.look(due, costs, "small.yaml", here=True)


@pytest.mark.workflow
@pytest.mark.faults
@pytest.mark.skipif(bool(why := cannot_mount("mount", "umount")), reason=f"no small disk can be mounted here: {why}")
def test_snakemake_starts_nothing_where_the_disk_is_too_small(tmp_path):
    render_world(tmp_path / "data", records=12, second_records=4, textvqa=2, mmbench=2, instructions=16, faults=False)
    run = Run(tmp_path, whole_configuration())
    with small_disk(tmp_path / "results", 2000):
        refused = run.snakemake(check=False)
        assert refused.returncode and "ROOM=any" in refused.stderr
        assert not list(run.results.rglob("*.parquet")) and not (run.results / "driver.json").exists()

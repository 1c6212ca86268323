"""A full disk: what is finished stays whole, nothing half-made stays, and the run goes on once there is room."""

from __future__ import annotations

import copy
import errno
import subprocess
from contextlib import chdir

import pytest
from in_process import InProcess, do
from light import light_configuration
from odd_disks import cannot_mount, small_disk
from surviving import data_of, leftovers

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

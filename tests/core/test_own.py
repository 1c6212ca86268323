"""Names that others may have taken first, what is no file, and what killed processes left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bettersynth.configuration.pool import USUAL
from bettersynth.core import own
from bettersynth.core.publish import publish, publish_folder
from bettersynth.pool.images import ImageProblem, check_image, open_image, read_image


@pytest.fixture(autouse=True)
def shared(tmp_path, monkeypatch):
    """A temporary folder that everybody may write into."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tmp_path.chmod(0o1777)
    return tmp_path


def test_a_folder_of_ones_own_is_used_again(shared):
    first = own.own_folder("gpus")
    assert first == own.own_folder("gpus") and first.stat().st_mode & 0o777 == 0o700


def test_a_link_in_its_place_is_not_followed(shared, tmp_path_factory):
    target = tmp_path_factory.mktemp("target")
    (shared / f"bettersynth-gpus-{os.getuid()}").symlink_to(target)
    with pytest.raises(own.TakenError, match="not a folder of yours alone: remove it"):
        own.own_folder("gpus")
    assert not list(target.iterdir())


def test_a_folder_that_others_may_write_into_is_not_used(shared):
    (shared / f"bettersynth-gpus-{os.getuid()}").mkdir()
    (shared / f"bettersynth-gpus-{os.getuid()}").chmod(0o777)
    with pytest.raises(own.TakenError):
        own.own_folder("gpus")


def test_a_folder_of_another_account_is_not_used(shared):
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another account")
    (shared / "bettersynth-gpus-0").mkdir(mode=0o700)
    shutil.chown(shared / "bettersynth-gpus-0", "nobody")
    with pytest.raises(own.TakenError):
        own.own_folder("gpus")


def test_locks_of_gpus_truncate_nothing(shared, tmp_path_factory, monkeypatch):
    from bettersynth.runtime import gpus

    victim = tmp_path_factory.mktemp("home") / "thesis"
    victim.write_text("years of work")
    folder = shared / f"bettersynth-gpus-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    for name in ("0", "1"):
        (folder / name).symlink_to(victim)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    with pytest.raises(own.TakenError):
        gpus.take(1)
    assert victim.read_text() == "years of work"


@pytest.mark.parametrize("what", ["named pipe", "device", "folder"])
def test_what_is_no_file_is_refused_at_once(tmp_path, what):
    path = tmp_path / "1.jpg"
    if what == "named pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    signal.alarm(5)  # who opens a named pipe waits for ever
    with pytest.raises(OSError):
        read_image(path)
    for look in (check_image, open_image):
        with pytest.raises(ImageProblem, match=r"1\.jpg"):
            look(path, USUAL)
    signal.alarm(0)


KILLED = """
import os, signal, sys
from pathlib import Path
from bettersynth.core.own import scratch_folder
from bettersynth.core.publish import publish, publish_folder
folder = Path(sys.argv[1])
with scratch_folder() as own, publish(folder / "a.json") as file, publish_folder(folder / "model") as model:
    (own / "x").write_text("1"); file.write_text("2"); (model / "x").write_text("3")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_killed_jobs_leave_is_swept_by_the_next(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    killed = [sys.executable, "-c", KILLED, str(folder)]
    environment = {**os.environ, "TMPDIR": str(shared)}
    assert subprocess.run(killed, env=environment).returncode == -signal.SIGKILL
    assert len(list(folder.iterdir())) == 2 and len(list(shared.glob("bettersynth-*"))) == 1
    own.sweep.cache_clear()
    mine = Path(folder, f".b.json.{os.uname().nodename}.local.{os.getpid()}.tmp")
    elsewhere = folder / ".b.json.another-host.local.1.tmp"
    for path in (mine, elsewhere):
        path.write_text("at work")
    with publish(folder / "a.json") as file, own.scratch_folder():
        file.write_text("whole")
        assert len(list(shared.glob("bettersynth-*"))) == 1
    with publish_folder(folder / "model"):
        pass
    assert sorted(path.name for path in folder.iterdir()) == [elsewhere.name, mine.name, "a.json", "model"]
    assert not list(shared.glob("bettersynth-*"))

"""Two writers never meet: who holds a lease, who may take it over, and what a job does that comes second."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from workflow import CONFIGURATION

from bettersynth.runtime import driver, job, lease
from bettersynth.runtime.lease import HeldError, Lease

HOLD = """
import sys, time
from pathlib import Path
from bettersynth.runtime.lease import Lease
Lease.acquire(Path(sys.argv[1]), log="a.log")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def hold(path: Path, seconds: float) -> subprocess.Popen[str]:
    """Another process that holds the lease."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, path, str(seconds)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def elsewhere(path: Path) -> None:
    """Make it look as if the lease's holder were on another machine."""
    path.write_text(json.dumps({**lease.read(path), "host": "n7", "place": "n7"}))


def test_a_lease_is_gone_when_its_holder_ends_in_order(tmp_path):
    path = tmp_path / "a" / "lease.json"
    assert hold(path, 0).wait() == 0
    assert list(path.parent.iterdir()) == []


def test_a_live_holder_keeps_its_lease_and_is_named(tmp_path):
    path = tmp_path / "lease.json"
    holder = hold(path, 60)
    before = path.read_bytes()
    with pytest.raises(HeldError, match=f"process {holder.pid} on "):
        Lease.acquire(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    holder.kill()


def test_a_killed_holder_loses_its_lease_at_once(tmp_path):
    path = tmp_path / "lease.json"
    holder = hold(path, 60)
    holder.kill()
    holder.wait()
    started = time.monotonic()
    mine = Lease.acquire(path)
    assert lease.read(path)["pid"] == os.getpid() and time.monotonic() - started < 5
    mine.release()
    assert not path.exists()


def test_another_process_of_the_same_number_is_not_the_holder(tmp_path):
    path = tmp_path / "lease.json"
    mine = Lease.acquire(path)
    mine.release()
    path.write_text(json.dumps({**mine.holder, "started": "1"}))
    assert not lease.is_live(path, lease.read(path))


@pytest.mark.parametrize("beats", [True, False])
def test_a_holder_elsewhere_lives_while_its_lease_is_touched(tmp_path, beats):
    path = tmp_path / "lease.json"
    hold(path, 0.1).kill()
    elsewhere(path)
    if beats:
        threading.Timer(0.5, os.utime, [path]).start()
    assert lease.is_live(path, lease.read(path), patience=1.5) == beats


def test_a_job_that_lost_its_lease_stops_writing(tmp_path, monkeypatch):
    path = tmp_path / "lease.json"
    code = HOLD.replace(
        "Lease.acquire", "import bettersynth.runtime.lease; bettersynth.runtime.lease.HEARTBEAT_S = 0.2; Lease.acquire"
    )
    process = subprocess.Popen([sys.executable, "-c", code, path, "60"], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    elsewhere(path)
    assert process.wait(10) == 1 and lease.read(path)["host"] == "n7"


def test_of_many_that_want_a_dead_ones_lease_one_gets_it(tmp_path):
    path = tmp_path / "lease.json"
    holder = hold(path, 60)
    holder.kill()
    holder.wait()
    command = [sys.executable, "-c", HOLD, path, "4"]
    contenders = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(4)]
    assert sorted(contender.wait() for contender in contenders) == [0, 1, 1, 1]


def test_a_terminated_job_gives_its_lease_back(tmp_path):
    path = tmp_path / "lease.json"
    handler = "import signal; from bettersynth.runtime import job; signal.signal(signal.SIGTERM, job._terminated)\n"
    code = HOLD.replace("print(", f"{handler}print(")
    process = subprocess.Popen([sys.executable, "-c", code, path, "60"], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143 and not path.exists()


@pytest.mark.parametrize("python", ["/my data/.venv/bin/python", "/data$1/python", "/it's/python"])
def test_a_path_that_snakemake_would_not_quote_is_refused(python):
    with pytest.raises(driver.DriverError, match="move or clone this folder"):
        driver.check_path(python)
    driver.check_path("/home/jürgen/büro-2/a_b.c+d@e=f,g/python")


def test_a_second_driver_is_refused_with_the_first_ones_process(tmp_path):
    path = tmp_path / "driver.json"
    first = hold(path, 60)
    with pytest.raises(driver.DriverError, match=f"process {first.pid} on .*\n?.*make status"):
        driver.start(path, "log", "folder")
    assert "is being run" in driver.hint(path)
    first.kill()
    first.wait()
    assert "make resume" in driver.hint(path)
    mine = driver.start(path, "log", "folder")
    assert lease.read(path)["pid"] == os.getpid()
    mine.release()


@pytest.mark.parametrize("content", [b"", b"\0" * 90, b'{"host": "n1", "pid', b"null"])
def test_leases_that_a_power_cut_left_empty_or_torn_are_named_and_swept(tmp_path, monkeypatch, caplog, content):
    monkeypatch.setattr(lease, "SETTLE_S", 0.05)
    path = tmp_path / "results" / "small" / "driver.json"
    jobs = path.parent / "leases" / "dataset" / "best.json"
    jobs.parent.mkdir(parents=True)
    for torn in (path, jobs):
        torn.write_bytes(content)
    log = tmp_path / ".snakemake" / "log" / "2026-01-01T000000.snakemake.log"
    log.parent.mkdir(parents=True)
    log.touch()
    before = driver.cut_off(path)
    assert before["log"] == str(log) and "make resume" in driver.hint(path) and str(path) in caplog.text
    mine = driver.start(path, "now", "folder", ["small.yaml"])
    assert lease.read(path)["pid"] == os.getpid() and not jobs.exists()
    mine.release()


def test_a_claim_that_a_power_cut_left_empty_is_written_anew(tmp_path):
    claim = tmp_path / "results" / "mine" / "configuration.json"
    claim.parent.mkdir(parents=True)
    claim.touch()
    driver.claim(claim, str(tmp_path / "mine.yaml"), named=False)
    assert driver.owner(claim, "other.yaml") == Path("mine.yaml")


def test_a_holder_whose_lease_was_emptied_writes_it_again(tmp_path, monkeypatch):
    for name in ("HEARTBEAT_S", "SETTLE_S"):
        monkeypatch.setattr(lease, name, 0.05)
    mine = Lease.acquire(tmp_path / "lease.json")
    mine.path.write_bytes(b"")
    deadline = time.monotonic() + 10
    while mine.path.read_bytes() == b"" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert lease.read(mine.path) == mine.holder
    mine.release()


@pytest.fixture
def without_links(monkeypatch):
    """A disk without hard links, as exFAT, SMB and some FUSE are."""

    def refuse(self, target):
        raise PermissionError(errno.EPERM, "Operation not permitted", str(self))

    monkeypatch.setattr(Path, "hardlink_to", refuse)


def test_one_of_many_gets_a_lease_on_a_disk_without_hard_links(without_links, tmp_path):
    path = tmp_path / "lease.json"
    mine = Lease.acquire(path)
    assert lease.read(path)["pid"] == os.getpid() and list(tmp_path.iterdir()) == [path]
    with pytest.raises(HeldError):
        Lease.acquire(path)
    mine.release()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_jobs_log_is_kept_on_a_disk_without_hard_links(without_links, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "_copied", {})
    log = tmp_path / "best.log"
    log.write_text("on n1\n")
    job._keep(log)
    log.write_text("on n1\nwhy it failed\n")
    job._ends_badly()
    log.unlink()  # as Snakemake does before the job starts again
    assert (tmp_path / "best.1.log").read_text() == "on n1\nwhy it failed\n"


RESUMED = """
import sys
print("resumed with", *sys.argv[1:], flush=True)
"""


@pytest.fixture
def left_alone(tmp_path) -> subprocess.Popen[str]:
    """A job of a run on this machine whose Snakemake, here a script that says how it was called, was killed."""
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(CONFIGURATION))
    (tmp_path / "snakemake.py").write_text(RESUMED)
    results = tmp_path / "results" / "small"
    command = [str(tmp_path / "snakemake.py"), "--configfile", "small.yaml"]
    code = "import os, sys; from bettersynth.runtime.lease import *; "
    code += "path = Path('results/small/driver.json'); "
    code += "Lease.acquire(path, log='gone', command=sys.argv[1:], folder=os.getcwd()); os._exit(1)"
    subprocess.run([sys.executable, "-c", code, *command], cwd=tmp_path)
    return hold(results / "leases" / "pretrain" / "best" / "1.json", 60)


def resume(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bettersynth", "resume", "--config", "small.yaml", *options]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)


def test_a_driver_is_refused_beside_a_job_that_a_killed_one_left_on_this_machine(left_alone, tmp_path):
    path = tmp_path / "results" / "small" / "driver.json"
    named = f"still queued or running: process {left_alone.pid} on "
    with pytest.raises(driver.DriverError, match=f"{named}.*\n(.|\n)*make resume CONFIG=small.yaml CANCEL=1"):
        driver.start(path, "log", "folder")
    left_alone.kill()
    left_alone.wait()
    driver.start(path, "log", "folder").release()


def test_resume_waits_for_jobs_on_this_machine_and_goes_on(left_alone, tmp_path):
    resumed = resume(tmp_path)
    assert f"Waiting for jobs of the run before: process {left_alone.pid} on" in resumed.stdout.readline()
    left_alone.kill()
    left_alone.wait()
    assert resumed.communicate(timeout=60)[0].splitlines()[-1] == "resumed with --configfile small.yaml"


def test_resume_knows_a_run_by_any_of_its_files_and_however_it_was_called(left_alone, tmp_path):
    """`python -m snakemake --configfile=small.yaml more.yaml`, whose results have another name."""
    left_alone.kill()
    left_alone.wait()
    held = tmp_path / "results" / "small" / "driver.json"
    other = tmp_path / "results" / "other" / "driver.json"
    other.parent.mkdir()
    command = ["/somewhere/site-packages/snakemake/__main__.py", "--configfile=small.yaml", "more.yaml"]
    files = [str(tmp_path / "small.yaml"), "more.yaml"]
    other.write_text(json.dumps({**lease.read(held), "command": command, "configs": files}))
    held.unlink()
    assert resume(tmp_path).communicate(timeout=60)[0].splitlines()[-1] == (
        "resumed with --configfile=small.yaml more.yaml"
    )
    assert not other.exists()


def test_resume_of_a_run_whose_lease_was_emptied_unlocks_and_says_how_to_go_on(left_alone, tmp_path):
    left_alone.kill()
    left_alone.wait()
    path = tmp_path / "results" / "small" / "driver.json"
    path.write_bytes(b"")
    command = [sys.executable, "-m", "bettersynth", "resume", "--config", "small.yaml"]
    resumed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "make run CONFIG=small.yaml" in resumed.stderr and "Traceback" not in resumed.stderr
    assert f"{path}: empty or torn" in resumed.stderr and not path.exists()


def test_resume_cancels_jobs_on_this_machine_when_asked(left_alone, tmp_path):
    said = resume(tmp_path, "--cancel").communicate(timeout=60)[0]
    assert f"Cancelling jobs of the run before: process {left_alone.pid} on" in said and "resumed with --config" in said
    assert left_alone.wait(10) == -signal.SIGTERM


SECOND = """
import sys
from types import SimpleNamespace
from bettersynth.runtime.job import RunningJob
sys.path.insert(0, sys.argv[1])
from workflow import CONFIGURATION
names = ("wildcards", "params", "input", "output")
RunningJob(SimpleNamespace(threads=1, config={**CONFIGURATION, "name": "small"}, log=["logs/small/dataset/best.log"],
                    rule="dataset", resources={}, **dict.fromkeys(names, {})))
"""


def test_a_second_job_for_the_same_output_ends_at_once_and_touches_nothing(tmp_path):
    first = hold(tmp_path / "results" / "small" / "leases" / "dataset" / "best.json", 60)
    before = sorted(tmp_path.rglob("*"))
    command = [sys.executable, "-c", SECOND, Path(__file__).parents[1] / "support"]
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert second.returncode == 1
    assert f"process {first.pid} on" in second.stderr and "make resume" in second.stderr
    assert sorted(tmp_path.rglob("*")) == before
    first.kill()
    first.wait()
    assert subprocess.run(command, cwd=tmp_path).returncode == 0
    assert (tmp_path / "logs" / "small" / "dataset" / "best.log").read_text().startswith("on ")


def test_two_configurations_of_one_basename_do_not_share_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    claim = tmp_path / "results" / "mine" / "configuration.json"
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.yaml").touch()
    driver.claim(claim, "a/mine.yaml", named=False)
    driver.claim(claim, str(tmp_path / "a" / "mine.yaml"), named=False)
    with pytest.raises(driver.DriverError, match=r"holds the results of a/mine.yaml, and b/mine.yaml .*: mine_2"):
        driver.claim(claim, "b/mine.yaml", named=False)
    driver.claim(claim, "b/mine.yaml", named=True)
    (tmp_path / "b" / "mine.yaml").unlink()
    driver.claim(claim, "a/mine.yaml", named=False)  # the other was moved here

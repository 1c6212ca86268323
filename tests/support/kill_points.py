"""End a job at every step that it takes on the disk; the next run has to end in the files of an undisturbed one.

A step is a file that is opened to be written, a rename, a removal, a new folder or link, and each fsync. A job is
killed before each, and once more at each fsync of a file, when half of what was written since the last one is there;
and at random moments. Jobs are done in processes forked from one that has everything imported, and uses nothing of it.

    python tests/support/kill_points.py FOLDER [--most POINTS_OF_A_JOB] [--moments OF_A_JOB] [--rules RULE …]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from in_process import InProcess, do, every_job, prepare
from surviving import data_of, leftovers

from bettersynth.workflow.jobs import Job
from bettersynth.workflow.jobs.specification import _paths

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
NONE_LEFT = 3


class Point(NamedTuple):
    """Where a job is ended: before its step of that number, or with a torn file; or after so many seconds."""

    step: int = 0
    torn: bool = False
    seconds: float = 0.0


class Steps:
    """Counts the steps of this process below a folder, and ends it at one."""

    def __init__(self, root: Path, point: Point | None) -> None:
        self.root, self.point = f"{root.absolute()}{os.sep}", point
        self.taken: list[str] = []
        self.synced: dict[int, int] = {}
        self._fsync = os.fsync

    def watch(self) -> Steps:
        """From now on, for as long as the process lives."""
        sys.addaudithook(self._event)
        os.fsync = self._sync
        return self

    def _event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES):
            self._step(event, arguments[0])

    def _sync(self, descriptor: int | Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        path = Path(f"/proc/self/fd/{number}").readlink()
        self._step("fsync file" if path.is_file() else "fsync folder", path)
        self._fsync(number)
        found = os.fstat(number)
        self.synced[found.st_ino] = found.st_size

    def _step(self, event: str, path: Any) -> None:
        if isinstance(path, int) or not str(Path(os.fsdecode(path)).absolute()).startswith(self.root):
            return
        self.taken.append(event)
        if self.point is not None and len(self.taken) == self.point.step:
            if self.point.torn and event == "fsync file":
                found = path.stat()
                kept = min(self.synced.get(found.st_ino, 0), found.st_size)
                os.truncate(path, kept + (found.st_size - kept) // 2)
            os.kill(os.getpid(), signal.SIGKILL)


class Tree:
    """A results folder that is put back to how it was."""

    def __init__(self, place: Path, copy: Path) -> None:
        self.place, self.copy = place, copy
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(place, copy, symlinks=True)
        self.states = {path: _state(path) for path in self._files()}
        self.folders = {path for path in place.rglob("*") if path.is_dir()}

    def _files(self) -> list[Path]:
        return [path for path in self.place.rglob("*") if not path.is_dir()]

    def restore(self) -> None:
        """Remove what came, and bring back what went or changed."""
        for path in self._files():
            if path not in self.states:
                path.unlink()
        for path in sorted(self.place.rglob("*"), reverse=True):
            if path.is_dir() and path not in self.folders:
                path.rmdir()
        for folder in sorted(self.folders):
            folder.mkdir(exist_ok=True)
        for path, state in self.states.items():
            if not path.exists() or _state(path) != state:
                path.unlink(missing_ok=True)
                shutil.copy2(self.copy / path.relative_to(self.place), path)
                self.states[path] = _state(path)


def _state(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def forked(work: Callable[[], int], seconds: float = 0.0) -> int:
    """How a process ended that did this: its exit code, or less than nothing for a signal; killed after `seconds`."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = work()
        except BaseException as error:
            import traceback

            traceback.print_exception(error)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    if seconds:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)  # who has ended already waits to be asked how
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Harness:
    """A run whose jobs are killed, each at many points, before it goes on to the next."""

    def __init__(self, run: InProcess, most: int, moments: int, rules: list[str]) -> None:
        self.run, self.most, self.moments, self.rules = run, most, moments, rules
        self.notes = run.folder / "notes.json"
        self.tried: Counter[str] = Counter()
        self.survived: Counter[str] = Counter()
        self.faults: list[str] = []
        self.rule, self.wildcards = "", dict[str, str]()
        self.chosen = random.Random(0)

    def _done(self, point: Point | None, *, again: bool = False) -> int:
        """Do the job that is due, in a process of its own."""

        def work() -> int:
            job = named(self.run, self.rule, self.wildcards) if again else next(self.run.due(), None)
            if job is None:
                return NONE_LEFT
            started, steps = time.monotonic(), Steps(self.run.results, point).watch()
            do(job)
            taken, seconds = list(steps.taken), time.monotonic() - started
            if point is None:
                note = {"rule": job.rule.name, "wildcards": job.wildcards, "steps": taken, "seconds": seconds}
                self.notes.write_text(json.dumps(note | {"outputs": list(map(str, _paths(job.outputs)))}))
            return 0

        return forked(work, point.seconds if point else 0.0)

    def go(self) -> None:
        """Every job of the run."""
        while True:
            tree = Tree(self.run.results, self.run.folder / "before") if self.run.results.exists() else None
            code = self._done(None)
            if code == NONE_LEFT:
                return
            if code or tree is None:
                if code:
                    raise RuntimeError(f"a job that nobody disturbed ended with {code}")
                continue
            note = json.loads(self.notes.read_text())
            self.rule, self.wildcards = note["rule"], note["wildcards"]
            if self.rules and self.rule not in self.rules:
                continue
            self._kill(tree, note)

    def _kill(self, tree: Tree, note: dict[str, Any]) -> None:
        expected = data_of(self.run.results)
        after = Tree(self.run.results, self.run.folder / "after")
        for number, point in enumerate(self._points(note)):
            tree.restore()
            code = self._done(point, again=True)
            if code == 0:  # it had fewer steps than the first time, and was done before
                continue
            self.tried[self.rule] += 1
            if fault := self._goes_on(expected, note["outputs"] if number % 2 else []):
                self.faults.append(f"{self.rule} {self.wildcards} {point} of {len(note['steps'])}: {fault}")
            else:
                self.survived[self.rule] += 1
        after.restore()

    def _points(self, note: dict[str, Any]) -> list[Point]:
        steps = list(enumerate(note["steps"], 1))
        points = [Point(number) for number, _ in steps]
        points += [Point(number, torn=True) for number, event in steps if event == "fsync file"]
        if self.most and len(points) > self.most:
            points = self.chosen.sample(points, self.most)
        moments = [self.chosen.uniform(0.01, note["seconds"]) for _ in range(self.moments)]
        return points + [Point(seconds=seconds) for seconds in moments]

    def _goes_on(self, expected: dict[str, str], removed: list[str]) -> str:
        """Do the job again, after Snakemake's way of removing its outputs where there are some; what is wrong then."""
        scores = {} if removed else _scores(self.run.results, expected)
        for path in removed:
            (self.run.folder / path).unlink(missing_ok=True)
        if code := self._done(None, again=True):
            return f"the next run ended with {code}"
        if left := leftovers(self.run.results):
            return f"{left[0]} was not swept"
        found = data_of(self.run.results)
        if found != expected:
            other = sorted(name for name in found.keys() | expected if found.get(name) != expected.get(name))
            return f"other files: {', '.join(other)}"
        again = [path for path, state in scores.items() if _state(path) != state]
        return f"{again[0]} was scored again" if again else ""


def _scores(results: Path, expected: dict[str, str]) -> dict[Path, tuple[int, int, int]]:
    """Score shards that are finished, cards and all: they have to stay."""
    shards = [path for path in results.glob("scores/*/*/*-*.parquet") if path.with_suffix(".json").exists()]
    return {path: _state(path) for path in shards if path.relative_to(results).as_posix() in expected}


def named(run: InProcess, rule: str, wildcards: dict[str, str]) -> Job:
    """A job by its rule and wildcards, whatever of it is there."""
    jobs = run.jobs()
    jobs.fingerprints.check_inputs(run.config_file.name)
    [job] = [job for job in every_job(jobs) if (job.rule.name, dict(job.wildcards)) == (rule, wildcards)]
    job.rule.parameters(**job.wildcards)
    return job


def imported(run: InProcess) -> None:
    """Import here what a whole run imports, learnt in another process that does one."""
    copy, names = run.folder.with_name("imports"), run.folder / "modules.json"
    shutil.copytree(run.folder, copy, symlinks=True)

    def work() -> int:
        InProcess(copy).finish()
        names.write_text(json.dumps([name for name in sys.modules if not name.startswith("_")]))
        return 0

    if code := forked(work):
        raise RuntimeError(f"a run that nobody disturbed ended with {code}")
    for name in json.loads(names.read_text()):
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    shutil.rmtree(copy)


def main() -> None:
    """Print how many points were tried and survived, by rule, and every fault; exit status 1 where there is one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--most", type=int, default=0)
    parser.add_argument("--moments", type=int, default=1)
    parser.add_argument("--rules", nargs="*", default=[])
    options = parser.parse_args()
    os.environ["XDG_CACHE_HOME"] = str(options.folder.resolve() / "cache")
    prepare()
    run = InProcess(options.folder)
    imported(run)
    os.chdir(run.folder)
    harness = Harness(run, options.most, options.moments, options.rules)
    harness.go()
    print("\n".join(harness.faults), file=sys.stderr)
    print(json.dumps({"tried": harness.tried, "survived": harness.survived, "faults": len(harness.faults)}))
    sys.exit(bool(harness.faults))


if __name__ == "__main__":
    main()

"""Whether a run fits where it starts: the disk that its jobs will leave, and the memory of the largest of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bettersynth.core.commands import make
from bettersynth.core.errors import PersonError
from bettersynth.inspect.cost import Costs, Due, Line
from bettersynth.inspect.cost_table import size
from bettersynth.workflow.jobs import Job

ROOM = "BETTERSYNTH_ROOM"
"""The variable that says `any` where a run is to start whatever room there is (`make run ROOM=any`)."""
ROW_BYTES = 3_500
"""Memory that a job of tables takes for each row: the most of `docs/measurements/data-plane.json`, by clusters."""
JOB_BYTES = 500_000_000
"""What any job takes: Python and its libraries."""
TRAINED_BYTES = 16
"""Of a parameter that is trained without a GPU: fp32 weight, gradient and two moments."""
PER_RESUME = 2 * 3 * 4
"""Bytes of each of these parameters in `Costs.resume_bytes`."""
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class RoomError(PersonError, RuntimeError):
    """A run will not fit on the disk, or in memory."""


class Room(NamedTuple):
    """What a run takes, in bytes, and what of it takes most; what there is."""

    disk: float
    disk_free: int
    largest: list[Line]
    memory: float
    memory_there: int
    hungriest: str

    def __str__(self) -> str:
        words = f"This run will leave about {size(self.disk)} on the disk, where {size(self.disk_free)} are free"
        if self.memory:
            taken, there = size(self.memory), size(self.memory_there)
            words += f"; its largest job ({self.hungriest}) takes {taken} or more of {there} memory"
        return f"{words}."


def room_for(due: Iterable[Due], costs: Costs, *, here: bool) -> Room:
    """What these jobs take, and what there is; memory only where they run on this machine."""
    jobs = list(due)
    lines = costs.lines(jobs)
    trains = any(line.what == "finetune" for line in lines)
    taken = sum(line.size for line in lines) + costs.resume_bytes * trains
    needs = (
        [(memory_of(each, costs), f"{each.job.rule.name} {each.job.title}".strip()) for each in jobs] if here else []
    )
    memory, hungriest = max(needs, default=(0.0, ""))
    largest = sorted(lines, key=lambda line: -line.size)[:3]
    return Room(taken, _free(costs.jobs.layout.root), largest, memory, memory_there(), hungriest)


def look(due: Iterable[Job], costs: Costs, config: str | Path, *, here: bool) -> str:
    """What these jobs take, in a sentence; RoomError when they will not fit."""
    try:
        room = room_for(map(Due, due), costs, here=here)
    except Exception as error:  # an estimate that fails is no reason not to run
        return f"What this run takes cannot be foretold: {type(error).__name__}: {error}"
    refuse_too_little(room, config)
    return str(room)


def refuse_too_little(room: Room, config: str | Path) -> None:
    """Raise RoomError when a run will not fit, unless it is to start all the same."""
    if os.environ.get(ROOM) == "any":
        return
    again = f"To start all the same: {make('run', config=config, ROOM='any')}"
    if room.disk > room.disk_free:
        most = ", ".join(f"{line.what} {size(line.size)}" for line in room.largest if line.size)
        raise RoomError(f"{room} Most of it: {most}. `make gc` lists what may go (docs/disk.md). {again}")
    if room.memory > room.memory_there:
        raise RoomError(f"{room} Run it on a larger machine, or on a cluster (docs/slurm.md). {again}")


def memory_of(due: Due, costs: Costs) -> float:
    """A lower bound of what a job takes: its rows and, where no GPU holds them, its models and what is trained."""
    rows = max((task.amount.number for task in due.job.work if task.phase in ("ingest", "dataset")), default=0)
    taken: float = JOB_BYTES + rows * ROW_BYTES
    if not costs.has_gpus:
        taken += _weights(due.job, costs)
        if due.job.rule.name == "finetune":
            taken += costs.resume_bytes / PER_RESUME * TRAINED_BYTES
    return taken


def _weights(job: Job, costs: Costs) -> int:
    models = costs.configuration.models
    folders = [Path(models[name].path) for name in job.needs.models if name in models]
    return sum(file.stat().st_size for folder in folders for file in folder.glob("*.safetensors"))


def memory_there() -> int:
    """Bytes of memory of this machine, or of the container that this process is in."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in LIMITS:
        with suppress(OSError, ValueError):  # `max` is no number
            there = min(there, int(limit.read_text()))
    return there


def _free(root: Path) -> int:
    """Bytes that may be written where results lie, or will."""
    place = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    return shutil.disk_usage(place).free

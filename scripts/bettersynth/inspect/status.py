"""How far a configuration's run is: per phase and recipe, and each job that is at work, waiting or failed."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json
from bettersynth.runtime import driver, lease
from bettersynth.slurm import queue
from bettersynth.slurm.queue import QueuedJob
from bettersynth.workflow.jobs import Job, Jobs

PASS = re.compile(r"rule_(?P<rule>score_[a-z]+)_wildcards_(?P<source>.+)_(?P<scoring>[gc]pu-[0-9a-f]+)_(?P<chunk>.+)")
STATES = ("done", "running", "queued", "failed", "stopped", "waiting")


class State(NamedTuple):
    """Where a job stands; `detail` says more of one that is at work, queued or failed."""

    job: Job
    state: str
    detail: str = ""


def counted_jobs(jobs: Jobs, queued: list[QueuedJob]) -> list[Job]:
    """Each job of a run that is counted, in the order of the phases, those of a recipe together.

    Of passes, those that have begun or are in SLURM's queue; which will come, only Snakemake's graph knows.
    """
    found = {job.comment: job for rule in jobs for job in rule.jobs() if rule.group}
    for one in queued:
        if one.comment not in found and (match := PASS.fullmatch(one.comment)):
            rule, *values = match.groups()
            found[one.comment] = jobs[rule].job(*values)
    rules, recipes = [rule.name for rule in jobs], ["", *jobs.configuration.recipes]
    return sorted(
        found.values(),
        key=lambda job: (recipes.index(job.wildcards.get("recipe", "")), rules.index(job.rule.name)),
    )


def states(jobs: list[Job], layout: Layout, queued: list[QueuedJob]) -> list[State]:
    """Where each job stands, given the run's jobs in SLURM's queue."""
    by_comment = {job.comment: job for job in queued}
    return [_state(job, layout, by_comment.get(job.comment)) for job in jobs]


def _state(job: Job, layout: Layout, queued: QueuedJob | None) -> State:
    held = layout.lease(job.log)
    holder = lease.read(held)
    if (holder and lease.seems_live(held, holder)) or (queued and queued.state == "RUNNING"):
        where = f"SLURM job {queued.id} on {queued.reason} for {queued.elapsed}" if queued else _process(holder or {})
        return State(job, "running", f"{where}, {job.log}{_last_line(job.log)}")
    if job.result.exists():
        return State(job, "stopped" if _was_stopped(job.result) else "done")
    if queued:
        return State(job, "queued", f"SLURM job {queued.id} {queued.state.lower()} {queued.reason}")
    if job.log.exists() and not driver.is_of_an_earlier_run(layout.driver, job.log):
        return State(job, "failed", f"see {job.log}")
    return State(job, "waiting")


def _process(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid')} on {holder.get('host')}"


def _was_stopped(result: Path) -> bool:
    return result.name == "card.json" and read_json(result).get("status") == "stopped"


def _last_line(log: Path) -> str:
    """The last thing that a job said: of a long one, how much is done, its rate and the time left."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return f": {lines[-1]}" if len(lines) > 1 else ""


def describe(configuration: Configuration, layout: Layout) -> str:
    """The whole as a text: the driver, a line for each phase, and a line for each job at work, waiting or failed."""
    holder = driver.last_driver(layout.driver)
    queued = queue.queued(Path(holder["log"])) if holder else []
    jobs = counted_jobs(Jobs(configuration, layout), queued)
    found = [state for state in states(jobs, layout, queued) if state.state != "failed" or state.job.is_due]
    lines = [_driver_line(layout, holder), ""]
    width = max(len(state.job.group) for state in found)
    for phase in dict.fromkeys(state.job.group for state in found):
        counts = Counter(state.state for state in found if state.job.group == phase)
        told = ", ".join(f"{counts[name]} {name}" for name in STATES if counts[name])
        lines.append(f"{phase:<{width}}  {told}")
    lines.append("")
    for name in ("running", "queued", "failed"):
        lines += [
            f"{name:<8} {state.job.block} {state.job.title}: {state.detail}" for state in found if state.state == name
        ]
    return "\n".join(lines).rstrip()


def _driver_line(layout: Layout, holder: dict[str, Any] | None) -> str:
    if holder is None:
        return f"{layout.root}: nobody runs it now"
    if lease.seems_live(layout.driver, holder):
        return f"{layout.root}: run by process {holder['pid']} on {holder['host']}, log {holder['log']}"
    return f"{layout.root}: its run was cut off, log {holder['log']}; to go on: {driver.make('resume', holder)}"

"""How far a configuration's run is: per phase and recipe, and each job that is at work, waiting or failed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bettersynth.configuration.load import recipe_training
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import BENCHMARKS, Layout
from bettersynth.core.publish import read_json
from bettersynth.runtime import driver, lease
from bettersynth.slurm import queue
from bettersynth.slurm.queue import QueuedJob
from bettersynth.workflow.parameters import Graph
from bettersynth.workflow.passes import Chunk
from bettersynth.workflow.plan import Plan

PASS = re.compile(r"rule_score_[a-z]+_wildcards_(?P<source>.+)_(?P<scoring>[gc]pu-[0-9a-f]+)_(?P<chunk>.+)")
STATES = ("done", "running", "queued", "failed", "stopped", "waiting")


class Work(NamedTuple):
    """Something that a job makes."""

    phase: str
    name: str
    rule: str
    wildcards: tuple[str, ...]
    result: Path
    log: Path

    @property
    def comment(self) -> str:
        """What Snakemake calls the job in SLURM's queue."""
        return f"rule_{self.rule}" + (f"_wildcards_{'_'.join(self.wildcards)}" if self.wildcards else "")


class State(NamedTuple):
    """Where a piece of work stands; `detail` says more of one that is at work, queued or failed."""

    work: Work
    state: str
    detail: str = ""


def all_work(configuration: Configuration, layout: Layout, jobs: list[QueuedJob]) -> Iterator[Work]:
    """Everything that a run of the configuration makes, in the order of the phases; of passes, those `passes` finds."""
    logs = Path("logs") / layout.root.name
    plan = Plan(configuration)
    for file in configuration.pool.files:
        ledger, log = layout.file_ledger(file.name), logs / "ingest" / f"{file.name}.log"
        yield Work("pool", file.name, f"ingest_{file.name}", (), ledger, log)
    yield from passes(layout, jobs)
    for source, operator in sorted(plan.wanted_scores(["all"])):
        log = logs / "scores" / source / f"{operator}.log"
        result = layout.scores_card(source, operator)
        yield Work("scores", f"{operator} of {source}", "scores_of", (source, operator), result, log)
    for source, node in plan.generators.items():
        for shard in plan.shards(source):
            log = logs / "generate" / source / f"{shard}.log"
            yield Work("sources", shard, node.verb, (source, shard), layout.records_card(source, shard), log)
    for dataset in configuration.datasets:
        log = logs / "dataset" / f"{dataset}.log"
        yield Work("datasets", dataset, "dataset", (dataset,), layout.dataset_card(dataset), log)
    for recipe in configuration.recipes:
        yield from _recipe_work(recipe, configuration, layout, logs)


def passes(layout: Layout, jobs: list[QueuedJob]) -> Iterator[Work]:
    """Passes of scores that have begun or are in SLURM's queue; which will come, only Snakemake's graph knows."""
    logs = Path("logs") / layout.root.name / "score"
    tries = [log.relative_to(logs).with_suffix("") for log in logs.rglob("*.log")]
    begun = {log.parts for log in tries if not log.suffix}  # `NAME.1.log` is an earlier try's
    in_queue = {match.groups() for job in jobs if (match := PASS.fullmatch(job.comment))}
    for source, scoring, chunk in sorted(begun | in_queue):
        rule = "score_neural" if scoring.startswith("gpu-") else "score_plain"
        result, log = layout.pass_card(source, scoring, chunk), logs / source / scoring / f"{chunk}.log"
        yield Work("passes", f"{chunk} of {source}", rule, (source, scoring, chunk), result, log)


def _recipe_work(recipe: str, configuration: Configuration, layout: Layout, logs: Path) -> Iterator[Work]:
    log = logs / "trainset" / f"{recipe}.log"
    yield Work(f"{recipe}: trainset", recipe, "trainset", (recipe,), layout.trainset_card(recipe), log)
    seeds = [str(seed) for seed in configuration.recipes[recipe].seeds]
    probed = recipe_training(configuration, recipe).probe.keep is not None
    stages = {"probe": layout.probe} if probed else {}
    stages |= {"pretrain": layout.pretrain, "finetune": layout.finetune}
    for rule, folder in stages.items():
        for seed in seeds:
            result, log = folder(recipe, seed) / "card.json", logs / rule / recipe / f"{seed}.log"
            yield Work(f"{recipe}: {rule}", f"{recipe}, seed {seed}", rule, (recipe, seed), result, log)
    for rule, file in (("answer", layout.answers_card), ("score_answers", layout.result)):
        for seed in seeds:
            for benchmark in BENCHMARKS:
                name, log = f"{recipe}, seed {seed}, {benchmark}", logs / rule / recipe / f"{seed}.{benchmark}.log"
                result = file(recipe, seed, benchmark)
                yield Work(f"{recipe}: {rule}", name, rule, (recipe, seed, benchmark), result, log)


def states(work: list[Work], layout: Layout, jobs: list[QueuedJob]) -> list[State]:
    """Where each piece of work stands, given the run's jobs in SLURM's queue."""
    by_comment = {job.comment: job for job in jobs}
    return [_state(item, layout, by_comment.get(item.comment)) for item in work]


def _state(work: Work, layout: Layout, job: QueuedJob | None) -> State:
    held = layout.lease(work.log)
    holder = lease.read(held)
    if (holder and lease.seems_live(held, holder)) or (job and job.state == "RUNNING"):
        where = f"SLURM job {job.id} on {job.reason} for {job.elapsed}" if job else _process(holder or {})
        return State(work, "running", f"{where}, {work.log}{_last_line(work.log)}")
    if work.result.exists():
        return State(work, "stopped" if _was_stopped(work.result) else "done")
    if job:
        return State(work, "queued", f"SLURM job {job.id} {job.state.lower()} {job.reason}")
    if work.log.exists() and not driver.is_of_an_earlier_run(layout.driver, work.log):
        return State(work, "failed", f"see {work.log}")
    return State(work, "waiting")


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
    holder = lease.read(layout.driver)
    log = Path(holder["log"]) if holder else None
    jobs = queue.queued(log) if log else []
    graph = Graph(configuration, layout, Plan(configuration), list)
    found = [
        state
        for state in states(list(all_work(configuration, layout, jobs)), layout, jobs)
        if not (state.state == "failed" and state.work.phase == "passes") or _is_due(state.work, graph)
    ]
    lines = [_driver_line(layout, holder), ""]
    width = max(len(state.work.phase) for state in found)
    for phase in dict.fromkeys(state.work.phase for state in found):
        counts = Counter(state.state for state in found if state.work.phase == phase)
        told = ", ".join(f"{counts[name]} {name}" for name in STATES if counts[name])
        lines.append(f"{phase:<{width}}  {told}")
    lines.append("")
    for name in ("running", "queued", "failed"):
        lines += [
            f"{name:<8} {state.work.rule} {state.work.name}: {state.detail}" for state in found if state.state == name
        ]
    return "\n".join(lines).rstrip()


def _is_due(work: Work, graph: Graph) -> bool:
    """Whether a failed pass still has something to do; for a changed operator, or other sizes, others were made."""
    source, scoring, chunk = work.wildcards
    return graph.passes.is_due(source, Chunk(scoring, chunk))


def _driver_line(layout: Layout, holder: dict[str, Any] | None) -> str:
    if holder is None:
        return f"{layout.root}: nobody runs it now"
    if lease.seems_live(layout.driver, holder):
        return f"{layout.root}: run by process {holder['pid']} on {holder['host']}, log {holder['log']}"
    return f"{layout.root}: its run was cut off, log {holder['log']}; to go on: {driver.make('resume', holder)}"

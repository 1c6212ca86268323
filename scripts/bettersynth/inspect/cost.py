"""What jobs will cost: hours of GPUs and CPUs and space on disk, from the rates of past runs where there are some.

A rate is looked for in this order: the cards and benchmark files of past jobs of the same kind in this results folder;
the project's own measurements (`docs/measurements/`); figures stated elsewhere, with their source; a guess, called so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from enum import StrEnum
from functools import cache, cached_property
from math import prod
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from safetensors import safe_open

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.datasets import VERBS
from bettersynth.configuration.operators import operator_spec
from bettersynth.configuration.verb import Generator
from bettersynth.core.cached import cached_method
from bettersynth.core.publish import read_json
from bettersynth.workflow.expected import Basis, total
from bettersynth.workflow.jobs import Job, Jobs
from bettersynth.workflow.jobs.score import Score
from bettersynth.workflow.jobs.specification import Work

PHASES = ("ingest", "score", "generate", "dataset", "train", "evaluate", "other")
MOST_PAST = 8
"""Past jobs of one kind that a rate is taken from."""


class Due(NamedTuple):
    """A job that would run, and what Snakemake gives it."""

    job: Job
    gpus: int = 0


class Origin(StrEnum):
    """Where a figure comes from."""

    PAST = "past runs"
    MEASURED = "measured"
    STATED = "stated"
    GUESS = "guess"


class Rate(NamedTuple):
    """How fast one job works and what it leaves: `amount` units take `start + amount / per_second` seconds."""

    per_second: float
    start: float
    """Seconds before the work begins: Python, libraries, models."""
    on_gpu: bool
    origin: Origin
    detail: str
    """The run, file or text that the figure comes from."""
    cores: float = 1
    """Cores that a job without a GPU keeps busy."""


class Size(NamedTuple):
    """Bytes that a job leaves: `per_job + amount * per_unit`."""

    per_unit: float
    per_job: float


class Done(NamedTuple):
    """A past job: units of work, seconds of that work, seconds from start to end, bytes left, and the device."""

    amount: int
    working: float
    wall: float
    size: int
    device: str
    cores: float = 1

    def of_job(self, benchmark: Path, size: int, beside: float) -> Done:
        """The same with the seconds and cores of the whole job, where they were taken, and the bytes that it left.

        Of the seconds, `beside` went into work of other kinds.
        """
        if not benchmark.exists():
            return self._replace(size=size)
        header, *rows = (line.split("\t") for line in benchmark.read_text(encoding="utf-8").splitlines())
        taken = dict(zip(header, rows[-1], strict=True))  # Snakemake's columns
        wall, cpu = float(taken["s"]), float(taken.get("cpu_time", 0))
        return self._replace(size=size, wall=max(wall - beside, self.wall), cores=max(1.0, cpu / wall) if wall else 1.0)


class Line(NamedTuple):
    """All tasks of one kind and name, added up. Hours are those of one GPU, or of one core."""

    phase: str
    what: str
    jobs: frozenset[int]
    """Numbers of the jobs: one may do several kinds of work."""
    amount: int
    unit: str
    basis: Basis
    gpu_hours: float
    cpu_hours: float
    size: float
    rate: Rate


# Units per second on one H100, end to end from files on a disk, and seconds to start: guesses. What scores, writes
# captions or redraws states its own.
GUESSED_ON_GPU = {
    "answer": (20, 60),
}
# The same on one core of a CPU.
GUESSED_ON_CPU = {
    "ingest": (500, 5),
    "scores_of": (1_000_000, 5),
    "trainset": (20_000, 5),
    "preflight": (300, 5),
    "questions": (300, 5),
    "export": (5_000, 5),
    "export webdataset": (1_000, 5),
    "other": (1, 5),
}
# Samples per second on one GPU, as the write-up's best run logged them on four: 200,000 samples of stage 1 in 4,424 s,
# 240,000 of stage 2 in 17,850 s.
STATED = {"pretrain": 11.3, "finetune": 3.4}
STATED_BY = "the write-up's best run"
# Figures of the project's own measurements, units per second on one GPU: kind of work → file, figure.
MEASURED = {
    "probe": ("mgm-training", "pretrain_samples_per_second"),
    "pretrain": ("mgm-training", "pretrain_samples_per_second"),
    "finetune": ("mgm-training", "finetune_samples_per_second"),
    "answer": ("mgm-training", "answer_questions_per_second"),
}
# Bytes left for each unit of work.
GUESSED_SIZES = {
    "ingest": 130,
    "scores_of": 25,
    "trainset": 290,
    "preflight": 1_500,
    "export": 250,
    "export webdataset": 60_000,
    "answer": 400,
}
CONTEST_MODEL_BYTES = 6_400_000_000
"""MGM-2B and its two vision towers in half precision, for when their folders are not here."""
CONNECTOR_SHARE = 0.01
"""What stage 1 trains, among the bytes of the whole model: 53 MB of MGM-2B's 6.4 GB."""
CONTEST_TRAINED = 2_506_172_416
"""Parameters of Gemma-2B, the most of what stage 2 trains, for when its folder is not here."""
CORES_OF_A_GPU = 100
"""A guess: how many cores of a CPU do what one GPU does."""


class _Share(NamedTuple):
    """A kind of work of a job: the job's number and GPUs, and this work's part of the seconds before it begins."""

    number: int
    gpus: int
    start: float
    task: Work


class Costs:
    """Estimates the costs of jobs of one configuration, where no GPU is to be had in hours of CPUs alone."""

    def __init__(self, jobs: Jobs, measurements: str | Path, *, has_gpus: bool = True) -> None:
        self.jobs = jobs
        self.configuration = jobs.configuration
        self.measurements = Path(measurements)
        self.has_gpus = has_gpus

    def lines(self, due: Iterable[Due]) -> list[Line]:
        """The costs of the jobs, added up by phase and kind of work: phases in order, in each the dearest first."""
        groups: dict[tuple[str, str, str], list[_Share]] = defaultdict(list)
        for number, (job, gpus) in enumerate(due):
            tasks = job.work
            start = self._start(job, tasks) / len(tasks)
            for task in tasks:
                groups[task.phase, task.what, task.kind].append(_Share(number, gpus, start, task))
        lines = map(self._line, groups.values())
        return sorted(
            lines,
            key=lambda line: (PHASES.index(line.phase), -line.gpu_hours, -line.cpu_hours, line.what),
        )

    def _start(self, job: Job, tasks: list[Work]) -> float:
        """Seconds before a job's work begins: once, however many kinds of work it does."""
        rates = [self.rate(task.kind) for task in tasks]
        if isinstance(job.rule, Score) and all(rate.origin == Origin.PAST for rate in rates):
            return median(self._pass_starts[job.rule.name] or [0.0])
        return max(rate.start for rate in rates)

    @cached_property
    def _pass_starts(self) -> dict[str, list[float]]:
        return {rule.name: rule.starts() for rule in self.jobs if isinstance(rule, Score)}

    def _line(self, members: list[_Share]) -> Line:
        task = members[0].task
        rate, size = self.rate(task.kind), self.size(task.kind)
        gpu = cpu = left = 0.0
        for member in members:
            number = member.task.amount.number
            hours = (member.start + number / rate.per_second) / 3600
            if rate.on_gpu:
                gpu += hours * max(member.gpus, 1)
            else:
                cpu += hours * rate.cores
            left += size.per_job + number * size.per_unit
        numbers = frozenset(member.number for member in members)
        amount = total(member.task.amount for member in members)
        return Line(task.phase, task.what, numbers, amount.number, task.unit, amount.basis, gpu, cpu, left, rate)

    # --- rates -----------------------------------------------------------------------------------

    @cached_method
    def rate(self, kind: str) -> Rate:
        """How fast a kind of work goes, from the best source there is."""
        if done := self._past.get(kind):
            working = sum(job.working for job in done)
            amount = sum(job.amount for job in done)
            start = max(max(0.0, job.wall - job.working) for job in done)
            devices = sorted({job.device for job in done})
            detail = f"{len(done)} job{'s' * (len(done) > 1)} on {', '.join(devices)}"
            cores = median(job.cores for job in done)
            return Rate(max(amount, 1) / max(working, 1e-3), start, devices != ["cpu"], Origin.PAST, detail, cores)
        rate = self._measured(kind) or self._stated(kind)
        if rate.on_gpu and not self.has_gpus:
            detail = f"a core, {CORES_OF_A_GPU} times slower than a GPU"
            return Rate(rate.per_second / CORES_OF_A_GPU, rate.start, False, Origin.GUESS, detail)
        return rate

    def _own(self, kind: str) -> tuple[Cost, bool] | None:
        """What the thing that does the work states of itself, and whether it works on a GPU."""
        first, _, name = kind.partition(" ")
        if first == "score":
            spec = operator_spec(name)
            return spec.cost, spec.device == "gpu"
        if first == "dataset":
            return VERBS[name].cost, False
        verbs = (node.verb for node in self.configuration.datasets.values())
        generator = next((verb for verb in verbs if isinstance(verb, Generator) and verb.work() == kind), None)
        return None if generator is None else (generator.source_cost(self.configuration), generator.on_gpu)

    def _measured(self, kind: str) -> Rate | None:
        """A rate of the project's own measurements, once that benchmark has run."""
        own = self._own(kind)
        measured = own[0].measured if own else MEASURED.get(kind) or MEASURED.get(kind.partition(" ")[0])
        name, figure = measured or ("", "")
        path = self.measurements / f"{name}.json"
        kept = read_json(path) if path.exists() else {"figures": {}}
        if figure not in kept["figures"]:
            return None
        start = self._stated(kind).start
        return Rate(kept["figures"][figure], start, True, Origin.MEASURED, f"{path.name}, {kept['machine']}")

    def _stated(self, kind: str) -> Rate:
        """A rate that others state, or a guess."""
        if own := self._own(kind):
            cost, on_gpu = own
            return Rate(cost.per_second, cost.start, on_gpu, Origin.GUESS, "one H100" if on_gpu else "one core")
        first = kind.partition(" ")[0]
        stage = "pretrain" if kind == "probe" else kind
        if stage in STATED:
            return Rate(STATED[stage], 120, True, Origin.STATED, STATED_BY)
        for on_gpu, table, device in ((True, GUESSED_ON_GPU, "one H100"), (False, GUESSED_ON_CPU, "one core")):
            if found := table.get(kind) or table.get(first):
                return Rate(*found, on_gpu, Origin.GUESS, device)
        raise KeyError(f"no rate for the work `{kind}`: add a guess to bettersynth/inspect/cost.py")

    @cached_method
    def size(self, kind: str) -> Size:
        """What a kind of work leaves on the disk, from the best source there is."""
        first = kind.partition(" ")[0]
        if done := self._past.get(kind):
            left, amount = sum(job.size for job in done), sum(job.amount for job in done)
            if first in ("probe", "pretrain", "finetune"):
                return Size(0, left / len(done))
            return Size(left / max(amount, 1), 0)
        if kind in ("pretrain", "finetune"):
            share = CONNECTOR_SHARE if kind == "pretrain" else 1
            return Size(0, self.model_bytes * share)
        if own := self._own(kind):
            return Size(own[0].bytes, 2_000)
        return Size(GUESSED_SIZES.get(kind) or GUESSED_SIZES.get(first) or 0, 2_000)

    @cached_property
    def model_bytes(self) -> int:
        """Bytes of a whole trained model: its parts' weights, or those of MGM-2B when they are not here."""
        weights = [sum(file.stat().st_size for file in files) for files in self._weights.values()]
        return sum(weights) if all(weights) else CONTEST_MODEL_BYTES * bool(weights)

    @cached_property
    def resume_bytes(self) -> int:
        """Bytes that a state of stage 2 to resume from takes while it is replaced by the next.

        It holds fp32 weights of what is trained (the language model) and two moments of each, and the old state stays
        until the new one is whole.
        """
        trained = sum(map(_parameters, self._weights.get("language_model", [])))
        return 2 * 3 * 4 * (trained or CONTEST_TRAINED * bool(self._weights))

    @cached_property
    def _weights(self) -> dict[str, list[Path]]:
        """Files of the weights of each part of the model."""
        if self.configuration.training is None:
            return {}
        architecture, models = self.configuration.training.architecture, self.configuration.models
        parts = ("language_model", "vision_tower", "vision_tower_aux")
        return {part: sorted(Path(models[getattr(architecture, part)].path).glob("*.safetensors")) for part in parts}

    # --- past jobs -------------------------------------------------------------------------------

    @cached_property
    def _past(self) -> dict[str, list[Done]]:
        """Jobs of this results folder that are done, by kind of work."""
        found: dict[str, list[Done]] = defaultdict(list)
        for job in (job for rule in self.jobs for job in rule.jobs()):
            wanted = [each for each in job.evidence if len(found[each.kind]) < MOST_PAST and each.card.exists()]
            done = [(each, past) for each in wanted if (past := _done(read_json(each.card)))]
            working = sum(past.working for _, past in done)
            for each, past in done:
                size = sum(_bytes(path) for path in {each.card, *each.files})
                found[each.kind].append(past.of_job(job.benchmark, size, working - past.working))
        return {kind: done for kind, done in found.items() if done}


def _done(card: dict[str, Any]) -> Done | None:
    """What a card tells of its job; None for one that did nothing, such as a seed that was stopped."""
    amount = next((card[key] for key in ("lines", "asked", "records") if key in card), None)
    if "ledger" in card:
        amount = card["ledger"]["in"]
    parts = card.get("seconds_by_part", {})
    working = card["seconds"]
    if card.get("samples_per_second"):
        amount = (card["steps"] - card.get("resumed_from_step", 0)) * card["parameters"]["global_batch"]
        working = amount / card["samples_per_second"]
    amount = card.get("rows") if amount is None else amount
    start = parts.get("loading", 0.0)  # once for all that a job does
    if steady := card.get("steady"):  # neither starting nor loading nor compiling
        working = (amount or 0) * steady["seconds"] / steady["amount"]
    wall = max(card["seconds"], working) + start
    return Done(amount, working, wall, 0, card["device"]) if amount else None


def _bytes(path: Path) -> int:
    """Bytes of a file, or of a folder's files, states to resume from left out."""
    if path.is_dir():
        return sum(_bytes(entry) for entry in path.iterdir() if entry.name != "checkpoints")
    return path.stat().st_size if path.exists() else 0


@cache
def _parameters(weights: Path) -> int:
    """Numbers in a file of weights, by its header."""
    with safe_open(weights, "np") as file:
        return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping

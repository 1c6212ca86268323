"""What jobs will cost: hours of GPUs and CPUs and space on disk, from the rates of past runs where there are some.

A rate is looked for in this order: the cards and benchmark files of past jobs of the same kind in this results folder;
the project's own measurements (`docs/measurements/`); figures stated elsewhere, with their source; a guess, called so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from bettersynth.configuration.load import recipe_training
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import BENCHMARKS, Layout
from bettersynth.core.publish import read_json
from bettersynth.core.records import POOL
from bettersynth.workflow.expected import Basis, Expected, Rows, total
from bettersynth.workflow.passes import chunk_shards, pass_operators
from bettersynth.workflow.plan import Plan

PHASES = ("ingest", "score", "generate", "dataset", "train", "evaluate", "other")
MOST_PAST = 8
"""Past jobs of one kind that a rate is taken from."""


class Job(NamedTuple):
    """A job that would run, as Snakemake announces it."""

    rule: str
    wildcards: Mapping[str, str]
    gpus: int = 0
    cores: int = 1


class Task(NamedTuple):
    """A job's work of one kind; a job that scores by several operators has several."""

    phase: str
    what: str
    kind: str
    amount: Rows
    unit: str


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


# Units per second on one H100, end to end from files on a disk, and seconds to start: guesses from the speeds of the
# bare models, or of decoding where that is slower.
GUESSED_ON_GPU = {
    "score image_text_similarity_filter": (2_800, 30),
    "score image_text_matching_filter": (1_100, 30),
    "score image_aesthetics_filter": (2_200, 30),
    "score image_watermark_filter": (2_800, 30),
    "score image_nsfw_filter": (2_800, 30),
    "score phrase_grounding_recall_filter": (800, 40),
    "recaption": (100, 60),
    "chat": (10, 120),
    "redraw": (2, 60),
    "answer": (20, 60),
}
# The same on one core of a CPU.
GUESSED_ON_CPU = {
    "ingest": (500, 5),
    "score words_num_filter": (10_000, 15),
    "score text_action_filter": (700, 15),
    "score language_id_score_filter": (10_000, 15),
    "score text_length_filter": (50_000, 15),
    "score word_repetition_filter": (10_000, 15),
    "score character_repetition_filter": (5_000, 15),
    "score image_shape_filter": (2_000, 15),
    "score image_size_filter": (10_000, 15),
    "score image_aspect_ratio_filter": (2_000, 15),
    "score image_hash": (300, 15),
    "score image_ssim": (20, 15),
    "score text_embedding": (60, 20),
    "scores_of": (1_000_000, 5),
    "clean": (20_000, 5),
    "dataset": (200_000, 5),
    "dataset dedup": (20_000, 5),
    "trainset": (20_000, 5),
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
    "score image_text_similarity_filter": ("scoring", "similarity_pairs_per_s"),
    "score image_text_matching_filter": ("scoring", "matching_pairs_per_s"),
    "score image_aesthetics_filter": ("scoring", "aesthetics_pairs_per_s"),
    "score image_watermark_filter": ("scoring", "watermark_pairs_per_s"),
    "score image_nsfw_filter": ("scoring", "nsfw_pairs_per_s"),
    "score phrase_grounding_recall_filter": ("scoring", "grounding_pairs_per_s"),
    "recaption": ("captions", "blip2_opt_2_7b_sampled_captions_per_s"),
    "chat": ("captions", "llava_1_5_7b_captions_per_s"),
    "redraw": ("captions", "stable_diffusion_1_5_redraws_per_s"),
    "probe": ("mgm-training", "pretrain_samples_per_second"),
    "pretrain": ("mgm-training", "pretrain_samples_per_second"),
    "finetune": ("mgm-training", "finetune_samples_per_second"),
    "answer": ("mgm-training", "answer_questions_per_second"),
}
# Bytes left for each unit of work.
GUESSED_SIZES = {
    "ingest": 130,
    "score": 25,
    "score image_hash": 120,
    "score text_embedding": 300,
    "score language_id_score_filter": 30,
    "scores_of": 25,
    "recaption": 130,
    "clean": 130,
    "redraw": 60_000,
    "dataset": 20,
    "trainset": 290,
    "export": 250,
    "export webdataset": 60_000,
    "answer": 400,
}
CONTEST_MODEL_BYTES = 6_400_000_000
"""MGM-2B and its two vision towers in half precision, for when their folders are not here."""
CONNECTOR_SHARE = 0.01
"""What stage 1 trains, among the bytes of the whole model: 53 MB of MGM-2B's 6.4 GB."""
RESUME_FACTOR = 3
"""A state to resume from holds the trained weights and two moments of each."""
CONTEST_AMOUNTS = {"instructions": 240_000, "textvqa": 5_000, "mmbench": 4_377}
"""Sizes of the contest's fixed files, for when they are not here."""


class Costs:
    """Estimates the costs of jobs of one configuration. `benchmarks` is Snakemake's folder of benchmark files."""

    def __init__(
        self, configuration: Configuration, layout: Layout, benchmarks: str | Path, measurements: str | Path
    ) -> None:
        self.configuration = configuration
        self.layout = layout
        self.plan = Plan(configuration)
        self.expected = Expected(configuration, layout, self.plan)
        self.benchmarks = Path(benchmarks)
        self.measurements = Path(measurements)
        self.rate = cache(self.rate)  # type: ignore[method-assign]
        self.size = cache(self.size)  # type: ignore[method-assign]

    def lines(self, jobs: Iterable[Job]) -> list[Line]:
        """The costs of the jobs, added up by phase and kind of work: phases in order, in each the dearest first."""
        groups: dict[tuple[str, str, str], list[tuple[int, Job, Task]]] = defaultdict(list)
        for number, job in enumerate(jobs):
            for task in self.tasks(job):
                groups[task.phase, task.what, task.kind].append((number, job, task))
        lines = map(self._line, groups.values())
        return sorted(
            lines,
            key=lambda line: (PHASES.index(line.phase), -line.gpu_hours, -line.cpu_hours, line.what),
        )

    def _line(self, members: list[tuple[int, Job, Task]]) -> Line:
        task = members[0][2]
        rate, size = self.rate(task.kind), self.size(task.kind)
        gpu = cpu = left = 0.0
        for _, job, member in members:
            hours = (rate.start + member.amount.number / rate.per_second) / 3600
            if rate.on_gpu:
                gpu += hours * max(job.gpus, 1)
            else:
                cpu += hours * (job.cores if rate.origin == Origin.PAST else 1)
            left += size.per_job + member.amount.number * size.per_unit
        numbers = frozenset(number for number, _, _ in members)
        amount = total(member.amount for _, _, member in members)
        return Line(task.phase, task.what, numbers, amount.number, task.unit, amount.basis, gpu, cpu, left, rate)

    # --- what there is to do ---------------------------------------------------------------------

    def tasks(self, job: Job) -> list[Task]:
        """The work that a job does, by its rule and wildcards."""
        wildcards = job.wildcards
        match job.rule:
            case "score_neural" | "score_plain":
                return list(self._scoring(wildcards))
            case "recaption" | "redraw" | "clean":
                source = wildcards["source"]
                amount = self.expected.shard(source, wildcards["shard"])
                return [Task("generate", f"{job.rule}: {source}", self._generator(source), amount, "rows")]
            case "dataset":
                verb = self.plan.dataset(wildcards["dataset"]).verb
                amount = self.expected.rows(self.plan.dataset(wildcards["dataset"]).from_)
                return [Task("dataset", f"dataset: {verb}", f"dataset {verb}", amount, "rows")]
            case "export":
                amount = self.expected.rows(wildcards["dataset"])
                return [Task("dataset", f"export: {wildcards['form']}", f"export {wildcards['form']}", amount, "rows")]
            case "trainset":
                return [Task("dataset", "trainset", "trainset", self.expected.trainset(wildcards["recipe"]), "rows")]
            case "probe" | "pretrain" | "finetune":
                return [Task("train", job.rule, job.rule, self._samples(job.rule, wildcards["recipe"]), "samples")]
            case "answer":
                benchmark = wildcards["benchmark"]
                return [
                    Task(
                        "evaluate",
                        f"answer: {benchmark}",
                        f"answer {benchmark}",
                        self._questions(benchmark),
                        "questions",
                    )
                ]
            case rule if rule.startswith("ingest_"):
                file = rule.removeprefix("ingest_")
                return [Task("ingest", f"ingest: {file}", "ingest", self.expected.file(file), "records")]
            case "scores_of":
                source = wildcards["source"]
                amount = total(self.expected.shard(source, shard) for shard in self.plan.shards(source))
                return [Task("score", "scores_of", "scores_of", amount, "pairs")]
            case rule:
                return [Task("other", rule, "other", Rows(0, Basis.MADE), "")]

    def _scoring(self, wildcards: Mapping[str, str]) -> Iterator[Task]:
        """What a pass does: every operator scores every shard of the chunk."""
        source = wildcards["source"]
        shards = [self.expected.shard(source, shard) for shard in chunk_shards(wildcards["chunk"])]
        for operator in pass_operators(wildcards["scoring"], self.configuration, self.layout):
            kind = f"score {self.configuration.operators[operator].op}"
            yield Task("score", f"{operator} of {source}", kind, total(shards), "pairs")

    def _generator(self, source: str) -> str:
        """The kind of work of a generator: captions by one captioner are not written as fast as by another."""
        node = self.plan.dataset(source)
        if node.recaption:
            return f"recaption {node.recaption.captioner}"
        return f"redraw {node.redraw.redrawer}" if node.redraw else "clean"

    def _samples(self, stage: str, recipe: str) -> Rows:
        """Samples that one seed of a recipe trains on, of a stage; seeds that the probe will stop count in part."""
        training = recipe_training(self.configuration, recipe)
        if stage == "probe":
            return Rows(training.probe.steps * training.pretrain.global_batch, Basis.MADE)
        seeds = len(self.configuration.recipes[recipe].seeds)
        share = min(1.0, training.probe.keep / seeds) if training.probe.keep else 1.0
        if stage == "pretrain":
            rows, epochs = self.expected.trainset(recipe), training.pretrain.epochs
        else:
            rows, epochs = (
                _counted(training.finetune.instructions, b'"conversations"', "instructions"),
                training.finetune.epochs,
            )
        return Rows(round(rows.number * epochs * share), rows.basis)

    def _questions(self, benchmark: str) -> Rows:
        evaluation = self.configuration.evaluation
        questions: str = getattr(evaluation, benchmark).questions
        return _counted(questions, b"\n", benchmark)

    # --- rates -----------------------------------------------------------------------------------

    def rate(self, kind: str) -> Rate:
        """How fast a kind of work goes, from the best source there is."""
        if done := self._past.get(kind):
            working = sum(job.working for job in done)
            amount = sum(job.amount for job in done)
            start = max(max(0.0, job.wall - job.working) for job in done)
            devices = sorted({job.device for job in done})
            detail = f"{len(done)} job{'s' * (len(done) > 1)} on {', '.join(devices)}"
            return Rate(max(amount, 1) / max(working, 1e-3), start, devices != ["cpu"], Origin.PAST, detail)
        general = "chat" if self._answers_a_prompt(kind) else kind
        return self._measured(general) or self._stated(general)

    def _answers_a_prompt(self, kind: str) -> bool:
        """Whether the work is done by a captioner with a prompt: a chat model, whose captions are long."""
        verb, _, name = kind.partition(" ")
        return verb == "recaption" and self.configuration.captioners[name].prompt is not None

    def _measured(self, kind: str) -> Rate | None:
        """A rate of the project's own measurements, once that benchmark has run."""
        name, figure = MEASURED.get(kind) or MEASURED.get(kind.partition(" ")[0]) or ("", "")
        path = self.measurements / f"{name}.json"
        kept = read_json(path) if path.exists() else {"figures": {}}
        if figure not in kept["figures"]:
            return None
        start = self._stated(kind).start
        return Rate(kept["figures"][figure], start, True, Origin.MEASURED, f"{path.name}, {kept['machine']}")

    @staticmethod
    def _stated(kind: str) -> Rate:
        """A rate that others state, or a guess."""
        first = kind.partition(" ")[0]
        stage = "pretrain" if kind == "probe" else kind
        if stage in STATED:
            return Rate(STATED[stage], 120, True, Origin.STATED, STATED_BY)
        for on_gpu, table, device in ((True, GUESSED_ON_GPU, "one H100"), (False, GUESSED_ON_CPU, "one core")):
            if found := table.get(kind) or table.get(first):
                return Rate(*found, on_gpu, Origin.GUESS, device)
        raise KeyError(f"no rate for the work `{kind}`: add a guess to bettersynth/inspect/cost.py")

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
        return Size(GUESSED_SIZES.get(kind) or GUESSED_SIZES.get(first) or 0, 2_000)

    @cached_property
    def model_bytes(self) -> int:
        """Bytes of a whole trained model: its parts' weights, or those of MGM-2B when they are not here."""
        training = self.configuration.training
        if training is None:
            return 0
        parts = ("language_model", "vision_tower", "vision_tower_aux")
        folders = [Path(self.configuration.models[getattr(training.architecture, part)].path) for part in parts]
        weights = [sum(file.stat().st_size for file in folder.glob("*.safetensors")) for folder in folders]
        return sum(weights) if all(weights) else CONTEST_MODEL_BYTES

    # --- past jobs -------------------------------------------------------------------------------

    @cached_property
    def _past(self) -> dict[str, list[Done]]:
        """Jobs of this results folder that are done, by kind of work."""
        found: dict[str, list[Done]] = defaultdict(list)
        for kind, card_path, benchmark, outputs in self._places():
            if len(found[kind]) < MOST_PAST and card_path.exists() and (done := _done(read_json(card_path))):
                size = sum(_bytes(path) for path in (card_path, *outputs))
                wall = (_wall(self.benchmarks / benchmark) if benchmark else None) or done.wall
                found[kind].append(done._replace(size=size, wall=wall))
        return {kind: done for kind, done in found.items() if done}

    def _places(self) -> Iterator[tuple[str, Path, str | None, list[Path]]]:
        """Kind of work, card, benchmark file and results of every job that may be done already."""
        layout, plan = self.layout, self.plan
        for file in self.configuration.pool.files:
            records = [layout.records(POOL, shard) for shard in plan.shards(POOL) if _file(shard) == file.name]
            yield "ingest", layout.file_ledger(file.name), f"ingest/{file.name}.tsv", records
        for source in (POOL, *plan.generators):
            for operator, definition in self.configuration.operators.items():
                cards = sorted(layout.score_shard(source, operator, "", "").parent.glob("*.json"))
                for card in cards[:MOST_PAST]:
                    yield f"score {definition.op}", card, None, [card.with_suffix(".parquet")]
        for source in plan.generators:
            for shard in plan.shards(source)[:MOST_PAST]:
                outputs = [layout.records(source, shard), layout.failed(source, shard)]
                benchmark = f"generate/{source}/{shard}.tsv"
                yield self._generator(source), layout.records_card(source, shard), benchmark, outputs
        for name, node in self.configuration.datasets.items():
            outputs = [layout.rows(name), layout.dropped(name)]
            yield f"dataset {node.verb}", layout.dataset_card(name), f"dataset/{name}.tsv", outputs
        for name, forms in self.configuration.exports.items():
            for form in forms:
                folder = layout.export(name, form)
                yield f"export {form}", folder / "card.json", f"export/{name}.{form}.tsv", [folder]
        for recipe in self.configuration.recipes:
            yield from self._run_places(recipe)

    def _run_places(self, recipe: str) -> Iterator[tuple[str, Path, str | None, list[Path]]]:
        layout = self.layout
        yield "trainset", layout.trainset_card(recipe), f"trainset/{recipe}.tsv", [layout.trainset(recipe)]
        for seed in self.configuration.recipes[recipe].seeds:
            for stage in ("probe", "pretrain", "finetune"):
                folder = getattr(layout, stage)(recipe, seed)
                yield stage, folder / "card.json", f"{stage}/{recipe}/{seed}.tsv", [folder]
            for benchmark in BENCHMARKS:
                answers = layout.answers(recipe, seed, benchmark)
                card = layout.answers_card(recipe, seed, benchmark)
                yield f"answer {benchmark}", card, f"answer/{recipe}/{seed}.{benchmark}.tsv", [answers]


def _done(card: dict[str, Any]) -> Done | None:
    """What a card tells of its job; None for one that did nothing, such as a seed that was stopped."""
    amount = next((card[key] for key in ("lines", "asked", "records") if key in card), None)
    if "ledger" in card:
        amount = card["ledger"]["in"]
    parts = card.get("seconds_by_part", {})
    working = parts.get("computing", card["seconds"])
    start = 0.0
    if "preparing" in parts:  # one shard of a pass, whose models are loaded once for all its shards
        working, start = card["seconds"], parts["loading"]
    if card.get("samples_per_second"):
        amount = (card["steps"] - card.get("resumed_from_step", 0)) * card["parameters"]["global_batch"]
        working = amount / card["samples_per_second"]
    amount = card.get("rows") if amount is None else amount
    wall = max(card["seconds"], working + start)
    return Done(amount, working, wall, 0, card["device"]) if amount else None


def _wall(benchmark: Path) -> float | None:
    """Seconds from a job's start to its end, from Snakemake's benchmark file (its column `s`)."""
    if not benchmark.exists():
        return None
    header, *rows = (line.split("\t") for line in benchmark.read_text(encoding="utf-8").splitlines())
    return float(rows[-1][header.index("s")])


def _bytes(path: Path) -> int:
    """Bytes of a file, or of a folder's files, states to resume from left out."""
    if path.is_dir():
        return sum(_bytes(entry) for entry in path.iterdir() if entry.name != "checkpoints")
    return path.stat().st_size if path.exists() else 0


def _file(shard: str) -> str:
    return shard.rpartition("-")[0]


@cache
def _counted(path: str | Path, mark: bytes, what: str) -> Rows:
    """Entries of a file by a mark that each has once; of one that is not here, the contest's number."""
    path = Path(path)
    number = 0
    if path.exists():
        with path.open("rb") as file:
            rest = b""
            while block := file.read(1 << 24):
                number += (rest + block).count(mark)
                rest = (rest + block)[1 - len(mark) :] if len(mark) > 1 else b""
    return Rows(number, Basis.COUNTED) if number else Rows(CONTEST_AMOUNTS[what], Basis.PUBLISHED)

"""The rules of the workflow, each told in one specification: rule blocks and everything else that asks read it.

To add a rule: a specification here, a rule block in `rules/`, a thin script in `scripts/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from bettersynth.configuration.datasets import GENERATORS
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.workflow.expected import Expected
from bettersynth.workflow.fingerprints import Fingerprints
from bettersynth.workflow.jobs.dataset import Analysis, Export, HeldOut, MakeDataset, MakeTrainset
from bettersynth.workflow.jobs.evaluate import Answer, ScoreAnswers
from bettersynth.workflow.jobs.generate import Generate
from bettersynth.workflow.jobs.pool import Ingest, PoolIndex
from bettersynth.workflow.jobs.preflight import Instructions, Preflight, Questions
from bettersynth.workflow.jobs.report import EarlyLoss, Leaderboard, Report
from bettersynth.workflow.jobs.score import ScoreNeural, ScorePlain, ScoresOf
from bettersynth.workflow.jobs.specification import Context, Job, Kind, Rule
from bettersynth.workflow.jobs.train import ChooseSeeds, Finetune, Pretrain, Probe
from bettersynth.workflow.passes import Passes
from bettersynth.workflow.plan import Plan

__all__ = ["Job", "Jobs", "Rule"]


class Jobs:
    """The specifications of all rules, for one configuration, in the order of the phases."""

    def __init__(
        self,
        configuration: Configuration,
        layout: Layout,
        plan: Plan | None = None,
        targets: Callable[[], Iterable[str]] = lambda: ["all"],
        *,
        looks: bool = False,
    ) -> None:
        """`targets` are asked for, and with `looks` the pool's pictures looked at, once the graph needs them."""
        plan = plan or Plan(configuration)
        self.configuration, self.layout, self.plan = configuration, layout, plan
        self.fingerprints = Fingerprints(configuration, layout, looks=looks)
        self.passes = Passes(
            plan,
            layout,
            self.fingerprints.operator,
            lambda: plan.wanted_scores(targets()),
            configuration.scoring.shards_per_job,
        )
        self.expected = Expected(configuration, layout, plan)
        context = Context(configuration, layout, plan, self.fingerprints, self.passes, self.expected)
        self.ingest = Ingest(context)
        self.pool_index = PoolIndex(context)
        self.score_neural = ScoreNeural(context)
        self.score_plain = ScorePlain(context)
        self.scores_of = ScoresOf(context)
        self.generators = [Generate(context, verb) for verb in GENERATORS.values()]
        self.dataset = MakeDataset(context)
        self.analysis = Analysis(context)
        self.export = Export(context)
        self.held_out = HeldOut(context)
        self.trainset = MakeTrainset(context)
        self.preflight = Preflight(context)
        self.instructions = Instructions(context)
        self.questions = Questions(context)
        self.probe = Probe(context)
        self.choose_seeds = ChooseSeeds(context)
        self.pretrain = Pretrain(context)
        self.finetune = Finetune(context)
        self.answer = Answer(context)
        self.score_answers = ScoreAnswers(context)
        self.leaderboard = Leaderboard(context)
        self.early_loss = EarlyLoss(context)
        self.report = Report(context)

    def __iter__(self) -> Iterator[Rule]:
        for rule in vars(self).values():
            if isinstance(rule, Rule):
                yield rule
            elif rule is self.generators:
                yield from self.generators

    def __getitem__(self, rule: str) -> Rule:
        """The specification of a rule; KeyError when there is none."""
        for each in self:
            if each.name == rule:
                return each
        raise KeyError(rule)

    @property
    def on_gpu(self) -> set[str]:
        """Names of the rules that need a GPU."""
        return {rule.name for rule in self if rule.kind is Kind.GPU}

    def job(self, rule: str, wildcards: Mapping[str, str]) -> Job:
        """A job as Snakemake names it; KeyError for a target that only gathers."""
        for each in self:
            if each.block_each and rule.startswith(f"{each.name}_"):
                return each.job(rule.removeprefix(f"{each.name}_"))
        return Job(self[rule], dict(wildcards))

    def maker(self, file: Path) -> Job | None:
        """The job that makes a file of the results folder; None where none does."""
        return next((job for each in self if (job := each.maker(file))), None)

"""The steps of the data plane as a fresh process takes them: each imports what its rule's script imports, no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bettersynth.configuration import load
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.names import ShardName
from bettersynth.workflow.plan import Plan


def run_step(config: str, what: str, *names: str) -> None:
    """Do one step of the configuration in the present folder, as its rule's script does."""
    configuration = load(config)
    layout, plan = Layout(Path("results") / str(configuration.name)), Plan(configuration)
    STEPS[what](configuration, layout, plan, *names)


def _digests(configuration: Configuration, layout: Layout, plan: Plan, name: str) -> None:
    from bettersynth.workflow.digests import take_digests

    take_digests(configuration.pool, next(file for file in configuration.pool.files if file.name == name))


def _ingest(configuration: Configuration, layout: Layout, plan: Plan, name: str) -> None:
    from bettersynth.pool.ingest import ingest_file

    ingest_file(configuration.pool, next(file for file in configuration.pool.files if file.name == name), layout)


def _index(configuration: Configuration, layout: Layout, plan: Plan) -> None:
    from bettersynth.pool.ingest import build_index

    build_index(configuration.pool, layout)


def _score(configuration: Configuration, layout: Layout, plan: Plan, source: str, operator: str) -> None:
    from bettersynth.operators.scoring import score_chunk
    from bettersynth.workflow.jobs import Jobs

    for chunk in Jobs(configuration, layout, plan).passes.chunks(source, operator):
        score_chunk(source, chunk, configuration, layout)


def _gather(configuration: Configuration, layout: Layout, plan: Plan, source: str, operator: str) -> None:
    from bettersynth.operators.gather import gather_scores
    from bettersynth.workflow.jobs import Jobs

    cards = Jobs(configuration, layout, plan).scores_of.passes_over(source, operator)
    gather_scores(source, operator, cards, layout, plan)


def _generate(configuration: Configuration, layout: Layout, plan: Plan, shard: str) -> None:
    from bettersynth.sources.make import make_source_shard

    make_source_shard(ShardName.parse(shard).prefix, shard, configuration, layout, plan)


def _dataset(configuration: Configuration, layout: Layout, plan: Plan, name: str) -> None:
    from bettersynth.datasets.build import build_dataset

    build_dataset(name, configuration, layout, plan)


def _trainset(configuration: Configuration, layout: Layout, plan: Plan, name: str) -> None:
    from bettersynth.training.trainset import build_trainset

    build_trainset(name, configuration, layout, plan)


STEPS: dict[str, Callable[..., None]] = {
    "digests": _digests,
    "ingest": _ingest,
    "index": _index,
    "score": _score,
    "gather": _gather,
    "generate": _generate,
    "dataset": _dataset,
    "trainset": _trainset,
}

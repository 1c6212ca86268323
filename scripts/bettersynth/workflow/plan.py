"""What follows from the configuration alone: which source, shard and score each dataset reads.

Everything here is known before anything runs, so the graph of files is complete at the first dry run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

from bettersynth.configuration.datasets import Dataset
from bettersynth.configuration.operators import operator_spec
from bettersynth.configuration.section import NAME_PATTERN
from bettersynth.configuration.types import Configuration
from bettersynth.configuration.verb import Generator
from bettersynth.core.cached import cached_method
from bettersynth.core.names import ShardName, StatKey
from bettersynth.core.records import POOL

TARGET = re.compile(rf"(?:^(?P<rule>recipe)_|/(?P<folder>datasets|exports|trainsets|runs)/)(?P<name>{NAME_PATTERN})")
"""A rule or file that a person asks for by the name of a recipe or dataset."""


class Scores(NamedTuple):
    """One table of scores: what `operator` says of every record of `source`."""

    source: str
    operator: str


class Plan:
    """The static graph of datasets of one configuration."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration

    def dataset(self, name: str) -> Dataset:
        """The definition of a dataset."""
        return self.configuration.datasets[name]

    @cached_property
    def generators(self) -> dict[str, Generator]:
        """Verbs of the datasets that make a source of their own name."""
        verbs = {name: node.verb for name, node in self.configuration.datasets.items()}
        return {name: verb for name, verb in verbs.items() if isinstance(verb, Generator)}

    def shards(self, source: str) -> list[str]:
        """Names of a source's shards, in order."""
        if source == POOL:
            return [shard for file in self.configuration.pool.files for shard in shard_names(file.name, file.shards)]
        return shard_names(source, self.generators[source].shards)

    @cached_method
    def sources(self, dataset: str) -> tuple[str, ...]:
        """Every source that a row of the dataset may name, the pool first."""
        if dataset == POOL:
            return (POOL,)
        node = self.dataset(dataset)
        found = {dataset} if dataset in self.generators else set()
        if node.verb.keeps_sources:
            found.update(source for parent in node.row_parents for source in self.sources(parent))
        return tuple(sorted(found, key=lambda source: (source != POOL, source)))

    def makes_variants(self, dataset: str) -> bool:
        """Whether the records it makes have ids of their own: a row becomes several, or stays beside its new one."""
        return dataset in self.generators and self.generators[dataset].makes_variants(self.configuration)

    def operators(self, dataset: str) -> list[str]:
        """Operators whose scores the dataset's verb reads."""
        return self.dataset(dataset).verb.operators(self.configuration)

    def tolerance(self, key: StatKey) -> float:
        """How much a score may differ between devices and precisions."""
        tolerance = operator_spec(self.configuration.operators[key.operator].op).tolerance
        return tolerance * (8 if self.configuration.scoring.precision == "bf16" else 1)  # it has three bits fewer

    def scores(self, dataset: str) -> list[Scores]:
        """Tables of scores that the dataset's verb reads."""
        return [
            Scores(source, operator)
            for operator in self.operators(dataset)
            for source in self.sources(self.dataset(dataset).from_)
        ]

    def analysed(self, analysis: str) -> list[Scores]:
        """Tables of scores that an analysis reads."""
        definition = self.configuration.analyses[analysis]
        operators = dict.fromkeys(StatKey.parse(key).operator for key in definition.operators)
        return [Scores(source, operator) for operator in operators for source in self.sources(definition.dataset)]

    def wanted_scores(self, targets: Iterable[str]) -> set[Scores]:
        """Tables of scores that the targets of a run need.

        Targets that name recipes (`recipe_best`), or files of recipes and datasets, need what these read; any other
        needs every table: of the pool by each operator, and whatever a dataset or an analysis reads.
        """
        asked: set[str] = set()
        for target in targets:
            named = TARGET.search(target)
            if named is None or named["name"] not in self._targets(named["rule"] or named["folder"]):
                analysed = {scores for name in self.configuration.analyses for scores in self.analysed(name)}
                of_pool = {Scores(POOL, operator) for operator in self.configuration.operators}
                return self._scores_of(self.configuration.datasets) | analysed | of_pool
            asked.update(self._targets(named["rule"] or named["folder"])[named["name"]])
        return self._scores_of(name for dataset in asked for name in self.lineage(dataset))

    def _targets(self, kind: str) -> dict[str, list[str]]:
        """Names that a target of this kind may have, and the datasets each stands for."""
        if kind in ("datasets", "exports"):
            return {name: [name] for name in self.configuration.datasets}
        return {name: self.read_by(name) for name in self.configuration.recipes}

    def read_by(self, recipe: str) -> list[str]:
        """Datasets that a recipe's runs read: the one that is trained on, and the held-out pairs'."""
        held_out = self.configuration.held_out
        return [self.configuration.recipes[recipe].dataset, *([] if held_out is None else [held_out])]

    def _scores_of(self, datasets: Iterable[str]) -> set[Scores]:
        return {scores for dataset in datasets for scores in self.scores(dataset)}

    def reads_records(self, dataset: str) -> tuple[str, ...]:
        """Sources whose records (not only scores) the dataset's verb reads."""
        if dataset in self.generators:
            return (dataset,)
        node = self.dataset(dataset)
        return self.sources(node.from_) if node.verb.reads_records else ()

    @cached_method
    def lineage(self, dataset: str) -> tuple[str, ...]:
        """The dataset's ancestors and itself, parents before children, without the pool."""
        if dataset == POOL:
            return ()
        found: dict[str, None] = {}
        for parent in self.dataset(dataset).parents:
            found.update(dict.fromkeys(self.lineage(parent)))
        found[dataset] = None
        return tuple(found)

    def asked(self, dataset: str) -> list[str]:
        """Datasets whose rows the generators above (or at) `dataset` were asked to rewrite."""
        return [self.dataset(name).from_ for name in self.lineage(dataset) if name in self.generators]


def shard_names(prefix: str, shards: int) -> list[str]:
    """`<prefix>-0000` and on."""
    return [str(ShardName(prefix, number)) for number in range(shards)]

"""Scoring on a Ray cluster: what an actor does.

Import this module after `runtime.patches.prepare`: it imports Data-Juicer.
"""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Iterator
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from bettersynth.configuration.types import Configuration
from bettersynth.core.records import Record
from bettersynth.operators.batched.errors import RecordError
from bettersynth.operators.batched.load import load_scorer, plain
from bettersynth.operators.batched.scorer import BatchScorer, OperatorScores
from bettersynth.operators.batched.stand_in import AsGiven
from bettersynth.operators.ray.columns import FACTS, SHARD, STATS
from bettersynth.runtime.network import forbid_network
from bettersynth.runtime.patches.data_juicer import import_data_juicer
from bettersynth.runtime.patches.model_code import forbid_model_code
from bettersynth.workflow.roots import roots_of

import_data_juicer()

from data_juicer.ops.base_op import Filter

logger = logging.getLogger(__name__)


class ScoringFilter(Filter):
    """A Data-Juicer filter that fills in the stats of all operators of a pass and keeps every sample."""

    _name = "bettersynth_scoring_filter"
    _batched_op = True

    def __init__(self, configuration: str, operators: list[str], folder: str, **options: Any) -> None:
        """`configuration` is JSON; paths in it, and those of images, are relative to `folder`.

        `options` are Data-Juicer's, of how many actors there are and of what each needs.
        """
        super().__init__(
            batch_size=None, auto_op_parallelism=False, ray_execution_mode="actor", **options
        )  # a batch is a block
        self._configuration = configuration
        self._operators = operators
        self._folder = folder

    @cached_property
    def _scorer(self) -> BatchScorer:
        """The operators' models, loaded once, in the actor."""
        configuration = Configuration.model_validate_json(self._configuration)
        if not Path(self._folder).is_dir():
            raise FileNotFoundError(f"{self._folder}: no such folder (the job's folder); every node of a Ray needs it")
        os.chdir(self._folder)
        for place in roots_of(configuration.pool).places:
            if not Path(place).exists():
                raise FileNotFoundError(f"{place}: no such folder (pool.images); every node of a Ray needs it")
        forbid_model_code()
        forbid_network(f"scoring by {', '.join(self._operators)} on Ray")
        return load_scorer(self._operators, configuration)

    def compute_stats_batched(self, samples: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Score each shard of the block; a record that cannot be scored is noted in its shard's facts."""
        rows = {number: list(some) for number, some in groupby(range(len(samples[SHARD])), samples[SHARD].__getitem__)}
        try:
            for number, scores in self._scorer.score_shards(
                self._shards(samples, rows), AsGiven(), len(samples[SHARD])
            ):
                for position, row in enumerate(rows[number]):
                    samples[STATS][row] = dict(_stats(scores, position))
                samples[FACTS][rows[number][0]] = json.dumps({name: _facts(found) for name, found in scores.items()})
        except RecordError as error:
            failure = [error.operators, error.record, error.reason]
            samples[FACTS][rows[error.shard][0]] = json.dumps({"failure": failure})
        except Exception as error:  # as data: Ray would try again, and bury it in a trace of its own
            logger.exception("scoring on Ray")
            message = f"node {platform.node()} of the Ray cannot score: {type(error).__name__}: {error}"
            for row in (some[0] for some in rows.values() if not samples[FACTS][some[0]]):
                samples[FACTS][row] = json.dumps({"error": message})
        return samples

    def _shards(
        self, samples: dict[str, list[Any]], rows: dict[int, list[int]]
    ) -> Iterator[tuple[int, list[Record], list[str]]]:
        columns = [samples[name] for name in ("id", "text", "images")]
        for number, some in rows.items():
            yield number, [Record(*(column[row] for column in columns)) for row in some], self._operators


def _stats(scores: dict[str, OperatorScores], position: int) -> Iterator[tuple[str, Any]]:
    for name, found in scores.items():
        for stat, value in found.stats[position].items():
            yield f"{name}.{stat}", plain(value)


def _facts(found: OperatorScores) -> dict[str, Any]:
    return {name: getattr(found, name) for name in ("unreadable", "failed", "seconds", "device", "precision", "batch")}

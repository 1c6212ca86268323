"""A dataset as a Data-Juicer recipe: the `process` list that keeps the same rows, or the step that it has none for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bettersynth.configuration.operators import operator_spec
from bettersynth.configuration.threshold import Threshold
from bettersynth.configuration.types import Configuration
from bettersynth.core.errors import PersonError
from bettersynth.core.names import StatKey
from bettersynth.core.records import POOL
from bettersynth.datasets.verbs.dedup import Dedup
from bettersynth.datasets.verbs.filter import Filter
from bettersynth.deploy.data_juicer import LEAST, MOST, bounds

Step = dict[str, dict[str, Any]]


class NoCounterpartError(PersonError):
    """A dataset that no list of Data-Juicer's operators makes; the message names the step."""


def process_of(dataset: str, configuration: Configuration) -> list[Step]:
    """The steps from the pool to the dataset. Raises NoCounterpartError."""
    if dataset == POOL:
        return []
    node = configuration.datasets[dataset]
    before = process_of(node.from_, configuration)
    match node.verb:
        case Filter():
            return before + list(_filters(dataset, node.verb, configuration))
        case Dedup(by="text", near=False):
            return [*before, {"document_deduplicator": {"lowercase": False, "ignore_non_character": False}}]
    raise NoCounterpartError(
        f"datasets.{dataset}: `{node.verb.name}` ({' '.join(node.verb.brief().split())}) is no step of Data-Juicer's "
        f"that would keep the same rows; its parent can be written: make export-recipe DATASET={node.from_}"
    )


def _filters(dataset: str, verb: Filter, configuration: Configuration) -> Iterator[Step]:
    """One step for each operator of the filter, in its order."""
    of_operator: dict[str, dict[str, Threshold]] = {}
    for key, threshold in verb.thresholds().items():
        of_operator.setdefault(key.operator, {})[_stat(key, configuration)] = threshold
    for name, thresholds in of_operator.items():
        yield _step(f"datasets.{dataset}.filter.{name}", name, thresholds, configuration)


def _stat(key: StatKey, configuration: Configuration) -> str:
    return key.stat or next(iter(operator_spec(configuration.operators[key.operator].op).stats))


def _step(key: str, name: str, thresholds: dict[str, Threshold], configuration: Configuration) -> Step:
    operator = configuration.operators[name]
    spec = operator_spec(operator.op)
    if spec.ours:
        raise NoCounterpartError(f"{key}: {operator.op} is an operator of ours, which Data-Juicer does not have")
    if ours := sorted(set(operator.parameters) - set(spec.parameters)):
        raise NoCounterpartError(f"{key}: {operator.op} with `{ours[0]}` is ours; Data-Juicer's reads the whole text")
    arguments: dict[str, Any] = dict(operator.parameters)
    if spec.model_argument and operator.model:
        arguments[spec.model_argument] = str(Path(configuration.models[operator.model].path).resolve())
    known = {where: argument for argument, where in bounds(spec).items()}
    for stat in spec.stats:
        threshold = thresholds.get(stat)
        for side, open_ in (("min", LEAST), ("max", MOST), ("one_of", "")):
            argument = known.get((stat, side))
            value = getattr(threshold, side) if threshold else None
            if value is not None and argument is None:
                raise NoCounterpartError(f"{key}: {operator.op} has no argument for a {side} of {stat}")
            if argument is not None:
                arguments[argument] = _written(open_ if value is None else value, spec.thresholds.get(argument))
    rules = {threshold.any_or_all for threshold in thresholds.values()}
    if "any_or_all" in spec.thresholds:
        if len(rules) > 1:
            raise NoCounterpartError(
                f"{key}: its stats are asked by `any` and by `all`, and Data-Juicer's by one of both"
            )
        arguments["any_or_all"] = rules.pop()
    return {operator.op: arguments}


def _written(value: Any, default: Any) -> Any:
    """A bound as the argument wants it: sizes as text, counts as whole numbers."""
    if isinstance(default, str) and isinstance(value, int | float):
        return str(max(0, int(value)))
    return int(value) if isinstance(value, float) and value.is_integer() and not isinstance(default, float) else value

"""Datasets: a parent, one verb, and the rows `(id, source)` that come out, with a ledger that adds up."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from bettersynth.configuration.threshold import Threshold
from bettersynth.configuration.types import Configuration
from bettersynth.configuration.verb import Verb
from bettersynth.core.layout import Layout
from bettersynth.core.names import StatKey
from bettersynth.core.publish import Card, sha256_file
from bettersynth.core.tables import write_table
from bettersynth.datasets.ledger import Outcome, Reasons, split, write_dropped
from bettersynth.datasets.step import Step
from bettersynth.workflow.plan import Plan

logger = logging.getLogger(__name__)


def build_dataset(name: str, configuration: Configuration, layout: Layout, plan: Plan) -> dict[str, Any]:
    """Apply the dataset's verb; publish its rows, its dropped rows and, last, its card, which is returned."""
    node = configuration.datasets[name]
    card = Card(
        name=name,
        verb=node.verb.name,
        parents=node.parents,
        parameters=node.verb.model_dump(mode="json", exclude_none=True),
        inputs={parent: sha256_file(layout.rows(parent)) for parent in node.parents},
    )
    step = Step(name, layout, plan)
    outcome = applied(node.verb, step)
    ledger = outcome.ledger()
    if not ledger["out"]:
        logger.warning(_empty(name, node.from_, ledger))
        for line in _ranges(step, node.verb.thresholds()):
            logger.warning(line)
    _one_source_per_id(name, outcome.rows)
    write_table(layout.rows(name), outcome.rows.combine_chunks())
    write_dropped(layout.dropped(name), outcome.dropped, node.verb.name)
    return card.write(
        layout.dataset_card(name),
        beside=[layout.dropped(name)],
        ledger=ledger,
        rows=ledger["out"],
        sha256=sha256_file(layout.rows(name)),
    )


def applied(verb: Verb, step: Step) -> Outcome:
    """What the verb leaves of the rows; of none nothing, unless it takes rows of others."""
    nothing = not step.rows.num_rows and not verb.takes_rows
    outcome: Outcome = split(step.rows, Reasons(0)) if nothing else verb.apply(step)
    return outcome


def _empty(name: str, parent: str, ledger: dict[str, Any]) -> str:
    """What is said of a dataset without rows."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in ledger["dropped"].items())
    why = f"all {ledger['in']:,} were dropped ({reasons})" if reasons else f"`{parent}` has none"
    return f"Dataset `{name}` has no rows: {why}."


def _ranges(step: Step, thresholds: Mapping[StatKey, Threshold]) -> Iterator[str]:
    """Of a dataset without rows, each bound against the smallest and the largest score that it met."""
    for key, threshold in thresholds.items() if step.rows.num_rows else ():
        values = step.values(key)
        if threshold.one_of:
            seen = Counter(values.flat.tolist()).most_common(5)
            found = ", ".join(f"{word} ({count:,})" for word, count in seen) or "no value"
            yield f"  {values.label} is {found}; kept: {', '.join(threshold.one_of)}"
            continue
        known = values.flat[np.isfinite(values.flat)]
        found = f"from {known.min():g} to {known.max():g}" if len(known) else "never a number"
        bounds = {"min": threshold.min, "max": threshold.max}
        asked = ", ".join(f"{bound} {value:g}" for bound, value in bounds.items() if value is not None)
        yield f"  {values.label} is {found}; asked for: {asked}"


def _one_source_per_id(name: str, rows: pa.Table) -> None:
    distinct = rows.to_pandas().drop_duplicates()
    twice = distinct["id"][distinct["id"].duplicated()]
    if len(twice):
        examples = ", ".join(twice[:5])
        raise AssertionError(f"dataset `{name}`: {len(twice)} ids have two sources, such as {examples}")

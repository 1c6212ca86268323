"""Datasets: a parent, one verb, and the rows `(id, source)` that come out, with a ledger that adds up."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from bettersynth.configuration.datasets import GENERATORS, Cluster, Dataset, Dedup, Rank, Splice, Threshold
from bettersynth.configuration.operator import IMAGE_HASHES
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import Card, sha256_file
from bettersynth.core.records import caption_of, read_table, write_table
from bettersynth.datasets import clusters, dedup, verbs
from bettersynth.datasets.generated import generated
from bettersynth.datasets.ledger import Outcome, Reasons, no_reasons, split, stays
from bettersynth.datasets.scores import (
    asked_together,
    kept_by_margin,
    kept_together,
    load_scores,
    load_values,
    mean_per_row,
    threshold_reasons,
)
from bettersynth.pool.rows import load_records, read_rows
from bettersynth.workflow.plan import Plan

logger = logging.getLogger(__name__)


def build_dataset(name: str, configuration: Configuration, layout: Layout, plan: Plan) -> dict[str, Any]:
    """Apply the dataset's verb; publish its rows, its dropped rows and, last, its card, which is returned."""
    node = configuration.datasets[name]
    card = Card(
        name=name,
        verb=node.verb,
        parents=node.parents,
        parameters=node.model_dump(mode="json", exclude_none=True)[node.verb],
        inputs={parent: sha256_file(layout.rows(parent)) for parent in node.parents},
    )
    outcome = _apply(name, node, layout, plan)
    ledger = outcome.ledger()
    if not ledger["out"]:
        logger.warning(_empty(name, node, ledger))
        for line in _ranges(node, layout, plan):
            logger.warning(line)
    _one_source_per_id(name, outcome.rows)
    write_table(layout.rows(name), outcome.rows.combine_chunks())
    write_table(layout.dropped(name), outcome.dropped.combine_chunks())
    return card.write(
        layout.dataset_card(name), ledger=ledger, rows=ledger["out"], sha256=sha256_file(layout.rows(name))
    )


def _empty(name: str, node: Dataset, ledger: dict[str, Any]) -> str:
    """What is said of a dataset without rows."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in ledger["dropped"].items())
    why = f"all {ledger['in']:,} were dropped ({reasons})" if reasons else f"`{node.parents[0]}` has none"
    return f"Dataset `{name}` has no rows: {why}."


def _ranges(node: Dataset, layout: Layout, plan: Plan) -> Iterator[str]:
    """Of a filter that kept nothing, each bound against the smallest and the largest score that it met."""
    rows = read_rows(node.parents[0], layout)
    for key, threshold in (node.filter or {}).items() if rows.num_rows else ():
        values = load_values(rows, key, layout, plan)
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


def _apply(name: str, node: Dataset, layout: Layout, plan: Plan) -> Outcome:
    rows, *others = (read_rows(parent, layout) for parent in node.parents)
    named = dict(zip(node.parents[1:], others, strict=True))
    if not rows.num_rows and node.verb != "union":
        return split(rows, no_reasons(rows.num_rows))
    match node.verb:
        case "files":
            return verbs.files(rows, read_table(layout.index, ["id", "shard"]), node.parameters)
        case "filter":
            return _filter(rows, node.parameters, layout, plan)
        case "rank":
            return _rank(rows, node.parameters, layout, plan)
        case "sample":
            return verbs.sample(rows, node.parameters)
        case "resample":
            return verbs.resample(rows, node.parameters)
        case "cluster":
            return _cluster(rows, node.parameters, layout, plan)
        case "union":
            return verbs.union([rows, *others])
        case "intersect":
            return verbs.intersect(rows, named)
        case "subtract":
            return verbs.subtract(rows, named)
        case "splice":
            return _splice(rows, node, layout, plan)
        case "repeat":
            return verbs.repeat(rows, node.parameters)
        case "dedup":
            return _dedup(name, rows, node.parameters, layout, plan)
        case verb if verb in GENERATORS:
            return generated(name, rows, layout, plan)
        case verb:
            raise AssertionError(f"the verb `{verb}` has no meaning")


def _filter(rows: pa.Table, thresholds: dict[str, Threshold], layout: Layout, plan: Plan) -> Outcome:
    """Every threshold must hold; a row that fails several is dropped for the first one configured."""
    reasons = no_reasons(rows.num_rows)
    could, must = np.ones((2, rows.num_rows), dtype=bool)
    loaded = {key: load_values(rows, key, layout, plan) for key in thresholds}
    for key, threshold in thresholds.items():
        values = loaded[key]
        found = threshold_reasons(values, threshold)
        reasons = np.where(stays(reasons), found, reasons)
        tolerance = plan.tolerance(key)
        could &= kept_by_margin(values, threshold, tolerance)
        must &= kept_by_margin(values, threshold, -tolerance)
    for operator, several in asked_together(thresholds, loaded).items():
        tolerance = plan.tolerance(operator)
        reasons[stays(reasons) & ~kept_together(several)] = f"{operator} no value within every bound"
        could &= kept_together(several, tolerance)
        must &= kept_together(several, -tolerance)
    return split(rows, reasons)._replace(near=int((could & ~must).sum()))


def _rank(rows: pa.Table, parameters: Rank, layout: Layout, plan: Plan) -> Outcome:
    score, unranked = np.zeros(rows.num_rows), no_reasons(rows.num_rows)
    for key, weight in parameters.by.items():
        part, missing = mean_per_row(load_values(rows, key, layout, plan))
        score += weight * (verbs.min_max(part) if parameters.normalise == "min_max" else part)
        unranked = np.where(stays(unranked), missing, unranked)
    return verbs.rank(rows, score, unranked, parameters)


def _cluster(rows: pa.Table, parameters: Cluster, layout: Layout, plan: Plan) -> Outcome:
    scores = load_scores(rows, parameters.by, layout, plan)
    (stat,) = (name for name in scores.column_names if name != "id")
    return clusters.cluster(rows, scores[stat], f"{parameters.by}.{stat}", parameters)


def _splice(rows: pa.Table, node: Dataset, layout: Layout, plan: Plan) -> Outcome:
    parameters: Splice = node.parameters
    # What was rewritten on the way to `from` already is no candidate of this splice.
    above = set(plan.lineage(node.from_))
    generators = [name for name in plan.lineage(parameters.dataset) if name in plan.generators and name not in above]
    rewritten = [read_rows(plan.dataset(name).from_, layout) for name in generators]
    other = read_rows(parameters.dataset, layout)
    drop = parameters.unmatched == "drop" and bool(rewritten)
    return verbs.splice(rows, parameters.dataset, other, rewritten, drop_unmatched=drop)


def _dedup(name: str, rows: pa.Table, parameters: Dedup, layout: Layout, plan: Plan) -> Outcome:
    if parameters.by == "text":
        captions = [caption_of(text) for text in load_records(rows, layout, plan)["text"].to_pylist()]
        return split(rows, dedup.text_reasons(captions, parameters.similarity if parameters.near else None))
    operators = plan.operators(name)
    if not operators:
        raise ValueError(
            f"dataset `{name}`: dedup by image needs an operator that gives {' and '.join(IMAGE_HASHES)}; "
            "add `image_hash: {op: image_hash}` to `operators`"
        )
    scores = load_scores(rows, operators[0], layout, plan)
    digests, hashes = scores["image_sha256"].to_pylist(), scores["image_phash"].to_pylist()
    valueless: Reasons = np.array([None if row else f"{operators[0]}.image_sha256 no value" for row in digests], object)
    kept = np.flatnonzero(stays(valueless)).tolist()
    valueless[kept] = dedup.image_reasons(
        [digests[place] for place in kept],
        [hashes[place] for place in kept],
        parameters.distance if parameters.near else None,
    )
    return split(rows, valueless)


def _one_source_per_id(name: str, rows: pa.Table) -> None:
    distinct = rows.to_pandas().drop_duplicates()
    twice = distinct["id"][distinct["id"].duplicated()]
    if len(twice):
        examples = ", ".join(twice[:5])
        raise AssertionError(f"dataset `{name}`: {len(twice)} ids have two sources, such as {examples}")

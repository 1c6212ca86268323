"""Datasets in words: in one short line for a picture, in a sentence for a person who asks."""

from __future__ import annotations

from bettersynth.configuration.datasets import (
    Clean,
    Cluster,
    Dataset,
    Dedup,
    Rank,
    Recaption,
    Redraw,
    Resample,
    Sample,
    Splice,
    Threshold,
)
from bettersynth.configuration.types import Configuration

TIMES = {1: "once", 2: "twice"}


def brief(node: Dataset) -> str:
    """The verb and its parameters in one short line, or a line for each threshold."""
    match node.parameters:
        case dict() as thresholds:
            return "\n".join(f"{score} {interval(threshold)}" for score, threshold in thresholds.items())
        case list() as names:
            return f"{node.verb} {', '.join(names)}"
        case int() as times:
            return f"× {times}"
        case Rank() as rank:
            skipped = f" after {rank.skip:,}" if rank.skip else ""
            return f"best {size(rank.top, rank.fraction)}{skipped} by {weighted(rank)}"
        case Sample() as sample:
            return f"sample {size(sample.rows, sample.fraction)}"
        case Resample() as resample:
            return f"draw {resample.rows:,} with replacement"
        case Cluster() as cluster:
            return f"{cluster.rows:,} from {cluster.clusters} clusters by {cluster.by}"
        case Recaption(captioner=engine) | Redraw(redrawer=engine):
            return f"{node.verb} by {engine}"
        case Splice() as splice:
            return f"splice in {splice.dataset}" + (", drop failures" if splice.unmatched == "drop" else "")
        case Dedup() as dedup:
            return f"dedup {'near ' if dedup.near else ''}{dedup.by}"
        case _:
            return "clean captions"


def sentence(node: Dataset, configuration: Configuration) -> str:
    """What the verb does to the rows of `from`, for a person who does not know the verb."""
    match node.parameters:
        case dict() as thresholds:
            return "keep the rows with " + " and ".join(_condition(*item) for item in thresholds.items())
        case list() as names:
            what = {
                "files": "keep the records of the pool's files {}",
                "union": "add the rows of {}; of rows with one id the first stays",
                "intersect": "keep the rows whose id is also in {}",
                "subtract": "drop the rows whose id is in {}",
            }
            return what[node.verb].format(listed(names))
        case int() as times:
            return f"all rows {TIMES.get(times, f'{times} times')}, the whole set again after the whole set"
        case Rank() as rank:
            return _ranked(rank)
        case Sample() as sample:
            return f"draw {size(sample.rows, sample.fraction)} of the rows by seed {sample.seed} and their ids"
        case Resample(rows=rows, seed=seed):
            return (
                f"draw {rows:,} rows with replacement, by seed {seed} and their ids: some several times, others never"
            )
        case Cluster() as cluster:
            return _clustered(cluster)
        case Recaption(captioner=name, seed=seed):
            model = configuration.captioners[name].model
            return f"let {engine(name, model, configuration)} write a new caption for every row, seed {seed}"
        case Redraw(redrawer=name, seed=seed):
            model = configuration.redrawers[name].model
            return f"let {engine(name, model, configuration)} draw a new image for every row, seed {seed}"
        case Splice(dataset=other, unmatched=unmatched):
            rest = "stays as it was" if unmatched == "keep" else "is dropped"
            return (
                f"where {other} has a row of the same id, its version takes the row's place; a row that was "
                f"rewritten and is not in {other} {rest}"
            )
        case Dedup(by=by, near=near) as dedup:
            nearness = f"a Jaccard similarity of at least {dedup.similarity:g}"
            if by == "image":
                nearness = f"at most {dedup.distance} of 64 bits of their hashes differing"
            return f"of rows with the same {by} keep the first" + (f", and of nearly the same: {nearness}" * near)
        case Clean() as clean:
            bounds = f"{clean.min_words} to {clean.max_words:,} words"
            return f"mend the captions (advertising, repeated words) and drop those beyond repair: {bounds} stay"
        case parameters:  # a verb without a sentence of its own
            return f"{node.verb} {parameters}"


def _condition(score: str, threshold: Threshold) -> str:
    inside = interval(threshold)
    if threshold.min is not None and threshold.max is not None:
        inside = f"from {threshold.min:g} to {threshold.max:g}"
    return f"{score} {inside}" + " for every value" * (threshold.any_or_all == "all")


def _ranked(rank: Rank) -> str:
    scaled = ", each scaled to 0…1," if rank.normalise == "min_max" else ""
    skipped = f"leave out the first {rank.skip:,} and " if rank.skip else ""
    first = "largest" if rank.descending else "smallest"
    return f"order by {weighted(rank)}{scaled} the {first} first, {skipped}keep {size(rank.top, rank.fraction)}"


def _clustered(cluster: Cluster) -> str:
    shares = {"uniform": "alike from each", "proportional": "by size from each"}[cluster.share]
    bands = cluster.bands
    near = f" ({bands.near:.0%} near its centre, {bands.middle:.0%} midway, {bands.far:.0%} far)" if bands else ""
    return f"find {cluster.clusters} clusters by {cluster.by} and draw {cluster.rows:,} rows, {shares}{near}"


def weighted(rank: Rank) -> str:
    """What a ranking orders by: `similarity + 0.5·matching`."""
    return " + ".join(score if weight == 1 else f"{weight:g}·{score}" for score, weight in rank.by.items())


def engine(name: str, model: str, configuration: Configuration) -> str:
    """A captioner or redrawer with its model: `blip2 (Salesforce/blip2-opt-2.7b)`."""
    entry = configuration.models[model]
    return f"{name} ({entry.hub or entry.path})"


def size(rows: int | None, fraction: float | None) -> str:
    """A number of rows or a share of them."""
    return f"{rows:,}" if rows is not None else f"{fraction:.1%}"


def interval(threshold: Threshold) -> str:
    """A threshold as people write it."""
    if threshold.one_of:
        return f"in {', '.join(threshold.one_of)}"
    if threshold.max is None:
        return f"≥ {threshold.min:g}"
    if threshold.min is None:
        return f"≤ {threshold.max:g}"
    return f"{threshold.min:g} … {threshold.max:g}"


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

"""Are the miniature's weak pairs captioned rightly, before and after: every captioner against the drawn truth.

Weak are the pairs that the miniature's dataset `weak` would keep of the pool, by its threshold on the similarity. A
captioner that samples is also measured with the best of four candidates. Confirmed are the new captions whose
similarity is above that threshold: those that are spliced back.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bettersynth.configuration import load
from bettersynth.configuration.generators import BestBy
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.names import StatKey
from bettersynth.core.records import POOL, Record, caption_of, read_records
from bettersynth.core.tables import read_table
from bettersynth.pool.images import ImageRoots
from bettersynth.pool.ingest import ingest_file
from bettersynth.workflow.plan import Plan

CONFIGURATION = Path("config/miniature.yaml")
WEAK = "weak"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this measurement."""
    parser.add_argument("--pairs", type=int, default=150, help="weak pairs at most (default: %(default)s)")


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Figures of the old captions, then of each captioner's."""
    configuration = load(CONFIGURATION)
    (key, threshold), *_ = configuration.datasets[WEAK].verb.thresholds().items()
    with tempfile.TemporaryDirectory(prefix="captions-quality-") as temporary:
        layout = Layout(temporary)
        roots = ImageRoots(configuration.pool, layout)
        score = _scorer(configuration, key, roots)
        records = [
            record
            for record, value in score(_pool(configuration, layout))
            if value is not None and value <= threshold.max
        ][: options.pairs]
        truth = _truth(configuration)
        figures = {"weak_pairs": float(len(records))} | _named("before", _figures(records, truth))
        for name in _with_best_of_four(configuration, key):
            made = _recaptioned(configuration, name, records, roots)
            confirmed = [record for record, value in score(made) if value is not None and value >= threshold.max]
            after = _figures(made, truth)
            after["made_share"] = len(made) / len(records)
            after["confirmed_share"] = len(confirmed) / len(records)
            after["confirmed_right_share"] = _figures(confirmed, truth)["right_share"]
            figures |= _named(name, after)
    return {name: round(figure, 4) for name, figure in figures.items()}


def _pool(configuration: Configuration, layout: Layout) -> list[Record]:
    for file in configuration.pool.files:
        ingest_file(configuration.pool, file, layout)
    return [
        record for shard in Plan(configuration).shards(POOL) for record in read_records(layout.records(POOL, shard))
    ]


def _scorer(configuration: Configuration, key: StatKey, roots: ImageRoots) -> Any:
    """A function from records to records with their mean score; None for one without any."""
    from bettersynth.operators.batched.load import load_scorer

    scorer = load_scorer([key.operator], configuration)

    def score(records: Sequence[Record]) -> list[tuple[Record, float | None]]:
        stats = scorer.score(records, roots)[key.operator].stats if records else []
        values = [next(iter(found.values())) for found in stats]
        return [
            (record, sum(value) / len(value) if value is not None and len(value) else None)
            for record, value in zip(records, values, strict=True)
        ]

    return score


def _with_best_of_four(configuration: Configuration, key: StatKey) -> Iterable[str]:
    """Names of the captioners; those that sample are entered a second time, as `<name>_best_of_4`."""
    for name, captioner in list(configuration.captioners.items()):
        yield name
        if captioner.sampling:
            best = captioner.model_copy(update={"candidates": 4, "keep": BestBy(best_by=str(key))})
            configuration.captioners[f"{name}_best_of_4"] = best
            yield f"{name}_best_of_4"


def _recaptioned(
    configuration: Configuration, captioner: str, records: Sequence[Record], roots: ImageRoots
) -> list[Record]:
    from bettersynth.sources.captioners.recaptioner import Recaptioner

    recaptioner = Recaptioner(captioner, 0, configuration, roots)
    made = {place: outcome for part in recaptioner.make(records) for place, outcome in part.items()}
    return [record for place in sorted(made) for record in made[place].records]


def _truth(configuration: Configuration) -> dict[str, Any]:
    """The scene of every record, as far as captions can speak of it."""
    from miniature.world import Scene, Sign, Thing

    def scene(row: dict[str, Any]) -> Scene:
        columns = (row[name] for name in ("colours", "shapes", "sizes", "places", "actions"))
        things = tuple(
            Thing(colour, shape, size, place, action or None, 0, 0, 0)
            for colour, shape, size, place, action in zip(*columns, strict=True)
        )
        sign = Sign(row["sign"], row["sign_place"], "", 0, 0) if row["sign"] else None
        return Scene(things, sign, row["style"], 0)

    path = configuration.report.truth
    if path is None:
        raise ValueError(f"{CONFIGURATION} names no `report.truth`")
    return {row["id"]: scene(row) for row in read_table(path).to_pylist()}


def _figures(records: Sequence[Record], truth: dict[str, Any]) -> dict[str, float]:
    """How right the records' captions are, and how much they say."""
    from miniature.captions import errors, is_right, read

    captions = [(caption_of(record.text), truth[record.id]) for record in records]
    count = max(len(captions), 1)
    stated = sum(_statements(read(text)) for text, _ in captions)
    wrong = sum(len(errors(*caption)) for caption in captions)
    return {
        "right_share": sum(is_right(*caption) for caption in captions) / count,
        "attributes_right_share": 1 - wrong / max(stated, 1),
        "attributes_per_caption": stated / count,
        "words_per_caption": sum(len(text.split()) for text, _ in captions) / count,
    }


def _statements(claims: Any) -> int:
    """How many attributes a caption states."""
    of_things = sum(value is not None for thing in claims.things for value in vars(thing).values())
    others = (claims.sign, claims.sign_place, claims.style, claims.count)
    return of_things + claims.has_sign + sum(value is not None for value in others)


def _named(prefix: str, figures: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": figure for name, figure in figures.items()}

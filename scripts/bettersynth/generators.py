"""Generators: verbs that make a new source. They write captions again, draw images again, or clean captions.

A row that cannot be made is reported with its reason and never replaced by another.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pyarrow as pa

from bettersynth.configuration.datasets import Clean, Language, Recaption
from bettersynth.configuration.types import Configuration
from bettersynth.datasets.generated import FAILED
from bettersynth.hygiene import OTHER_LANGUAGE, clean_text
from bettersynth.images import ImageProblem, ImageReason, ImageRoots
from bettersynth.journal import Journal
from bettersynth.layout import Layout
from bettersynth.operators import offline
from bettersynth.operators.scoring import load_scorer, operator_facts
from bettersynth.plan import Plan
from bettersynth.progress import progress
from bettersynth.publish import Card, sha256_file, sha256_json
from bettersynth.records import Record, caption_of, write_records, write_table
from bettersynth.sources import asked_rows, load_records, read_rows

if TYPE_CHECKING:
    from PIL.Image import Image


class GeneratorError(RuntimeError):
    """A record stopped the generator; the message names it."""


class Outcome(NamedTuple):
    """What became of a record: its new version (or several), or the reason why there is none."""

    records: list[Record]
    reason: str | None = None


Made = dict[int, Outcome]
"""Outcomes of some of the records that a generator was given, by their places."""


class Generator(Protocol):
    """Makes new records, some at a time."""

    facts: dict[str, Any]
    """All that decides an outcome apart from the record."""

    def make(self, records: Sequence[Record]) -> Iterator[Made]:
        """Outcomes as they get done, every record's once."""


def make_source_shard(source: str, shard: str, configuration: Configuration, layout: Layout, plan: Plan) -> None:
    """Write one shard of a generated source: its records, the rows that failed and, last, the card.

    Finished work is kept in a journal and used again after a kill, or when a later run asks for other rows.
    """
    node = plan.dataset(source)
    parameters = node.parameters
    card = Card(name=source, verb=node.verb, shard=shard, parameters=parameters.model_dump(mode="json"))
    rows = asked_rows(read_rows(node.from_, layout), shard, parameters.shards)
    table = load_records(rows, layout, plan).select(list(Record._fields))
    records = [Record(**row) for row in table.to_pylist()]
    reused = 0
    facts: dict[str, Any] = {}
    roots = ImageRoots(configuration.pool, layout)
    if isinstance(parameters, Clean):
        outcomes, facts = _cleaned(records, parameters, configuration, roots)
    else:
        generator: Generator
        if isinstance(parameters, Recaption):
            from bettersynth.captioners.recaptioner import Recaptioner

            generator = Recaptioner(parameters, configuration, roots)
        else:
            from bettersynth.redrawers import Redrawing

            generator = Redrawing(source, parameters, configuration, roots, layout.source_images(source))
        facts = generator.facts
        outcomes, reused = _outcomes(records, generator, Journal(layout.work(source, shard)), roots, shard)

    made = [record for outcome in outcomes for record in outcome.records]
    sources = rows["source"].to_pylist()
    failed = [
        (record.id, old, outcome.reason)
        for record, old, outcome in zip(records, sources, outcomes, strict=True)
        if not outcome.records
    ]
    path = layout.records(source, shard)
    write_records(path, made)
    columns = list(zip(*failed, strict=True)) or [(), (), ()]
    write_table(layout.failed(source, shard), pa.table([pa.array(column, pa.string()) for column in columns], FAILED))
    card.write(
        layout.records_card(source, shard),
        asked=len(records),
        made=len(records) - len(failed),
        rows=len(made),
        failed=dict(sorted(Counter(reason for _, _, reason in failed).items())),
        reused=reused,
        sha256=sha256_file(path),
        inputs={node.from_: sha256_file(layout.rows(node.from_))},
        **facts,
    )


def _outcomes(
    records: list[Record], generator: Generator, journal: Journal, roots: ImageRoots, shard: str
) -> tuple[list[Outcome], int]:
    """The records' outcomes, and how many of them came from the journal."""
    keys = [sha256_json([list(record), generator.facts]) for record in records]
    found = {key: _recalled(journal.get(key), roots) for key in keys}
    todo = [(key, record) for key, record in zip(keys, records, strict=True) if found[key] is None]
    for made in progress(generator.make([record for _, record in todo]), len(todo), shard, size=len):
        outcomes = {todo[place][0]: outcome for place, outcome in made.items()}
        journal.append({key: outcome._asdict() for key, outcome in outcomes.items()})
        found.update(outcomes)
    return [found[key] for key in keys], len(records) - len(todo)  # type: ignore[misc]


def _recalled(entry: dict[str, Any] | None, roots: ImageRoots) -> Outcome | None:
    """A journal entry as outcome; nothing when an image may be mended by now, or one that was made is gone."""
    if entry is None or entry["reason"] in set(ImageReason):
        return None
    records = [Record(*record) for record in entry["records"]]
    images = ((record.image_root, image) for record in records for image in record.images)
    return Outcome(records, entry["reason"]) if all(roots.path(*image).is_file() for image in images) else None


def _cleaned(
    records: list[Record], parameters: Clean, configuration: Configuration, roots: ImageRoots
) -> tuple[list[Outcome], dict[str, Any]]:
    """The records with clean captions, and for the card how many were repaired in which way."""
    cleaned = [clean_text(record.text, parameters) for record in records]
    outcomes = [
        Outcome([], found.reason) if found.text is None else Outcome([record._replace(text=found.text)])
        for record, found in zip(records, cleaned, strict=True)
    ]
    facts: dict[str, Any] = {
        "repaired": dict(sorted(Counter(kind for found in cleaned for kind in found.repairs).items()))
    }
    if parameters.language:
        outcomes = _in_language(outcomes, parameters.language, configuration, roots)
        facts["language"] = operator_facts(parameters.language.operator, configuration)
    return outcomes, facts


def _in_language(
    outcomes: list[Outcome], language: Language, configuration: Configuration, roots: ImageRoots
) -> list[Outcome]:
    """Without the records whose captions the operator takes for another language, or for none with confidence."""
    captions = [Record(record.id, caption_of(record.text), []) for outcome in outcomes for record in outcome.records]
    if not captions:
        return outcomes
    scorer = load_scorer([language.operator], configuration)
    stats = iter(scorer.score(captions, roots)[language.operator].stats)

    def kept(outcome: Outcome) -> Outcome:
        if not outcome.records:
            return outcome
        found = next(stats)
        right = found["lang"] in language.one_of and found["lang_score"] >= language.min
        return outcome if right else Outcome([], OTHER_LANGUAGE)

    return [kept(outcome) for outcome in outcomes]


def image_key(record: Record, number: int) -> str:
    """What an image's random numbers are drawn from: the record's id, and the image's number after the first."""
    return record.id if number == 0 else f"{record.id}#{number}"


def open_images(record: Record, roots: ImageRoots) -> list[Image] | Outcome:
    """The record's images, or the failure of a damaged one.

    Raises GeneratorError for a file that is missing: the folder may be unreachable just now.
    """
    try:
        return [roots.open(record.image_root, image) for image in record.images]
    except ImageProblem as problem:
        if problem.reason == ImageReason.MISSING:
            raise GeneratorError(f"record {record.id}: {problem}; bring it back and run again") from problem
        return Outcome([], str(problem.reason))


def prepare_offline() -> None:
    """Keep the libraries that load models off the network."""
    with tempfile.TemporaryDirectory() as cache:
        offline.prepare(cache)

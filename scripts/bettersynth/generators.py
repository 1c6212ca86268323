"""Generators: verbs that make a new source. They write captions again, draw images again, or clean captions.

A row that cannot be made is reported with its reason and never replaced by another.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pyarrow as pa

from bettersynth.configuration.types import Clean, Configuration, Recaption
from bettersynth.datasets.generated import FAILED
from bettersynth.hygiene import DEFAULTS, REFUSAL, clean_text, is_refusal
from bettersynth.images import ImageProblem, ImageReason, ImageRoots
from bettersynth.journal import Journal
from bettersynth.layout import Layout
from bettersynth.operators import offline
from bettersynth.parallel import batches
from bettersynth.plan import Plan
from bettersynth.progress import progress
from bettersynth.publish import Card, sha256_file, sha256_folder, sha256_json
from bettersynth.raw import caption_problem
from bettersynth.records import Record, caption_of, write_records, write_table
from bettersynth.sources import asked_rows, load_records, read_rows

if TYPE_CHECKING:
    from PIL.Image import Image

    from bettersynth.captioners import CaptionModel

logger = logging.getLogger(__name__)


class GeneratorError(RuntimeError):
    """A record stopped the generator; the message names it."""


class Outcome(NamedTuple):
    """What became of a record: its new version, or the reason why there is none."""

    record: Record | None
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
    if isinstance(parameters, Clean):
        outcomes = [_clean(record, parameters) for record in records]
    else:
        roots = ImageRoots(configuration.pool, layout)
        generator: Generator
        if isinstance(parameters, Recaption):
            generator = Recaptioner(parameters, configuration, roots)
        else:
            from bettersynth.redrawers import Redrawing

            generator = Redrawing(source, parameters, configuration, roots, layout.source_images(source))
        facts = generator.facts
        outcomes, reused = _outcomes(records, generator, Journal(layout.work(source, shard)), roots, shard)

    made = [outcome.record for outcome in outcomes if outcome.record]
    sources = rows["source"].to_pylist()
    failed = [
        (record.id, old, outcome.reason)
        for record, old, outcome in zip(records, sources, outcomes, strict=True)
        if outcome.record is None
    ]
    path = layout.records(source, shard)
    write_records(path, made)
    columns = list(zip(*failed, strict=True)) or [(), (), ()]
    write_table(layout.failed(source, shard), pa.table([pa.array(column, pa.string()) for column in columns], FAILED))
    card.write(
        layout.records_card(source, shard),
        asked=len(records),
        made=len(made),
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
    if entry["record"] is None:
        return Outcome(None, entry["reason"])
    record = Record(*entry["record"])
    if not all(roots.path(record.image_root, image).is_file() for image in record.images):
        return None
    return Outcome(record)


def _clean(record: Record, parameters: Clean) -> Outcome:
    text, reason = clean_text(record.text, parameters)
    return Outcome(None, reason) if text is None else Outcome(record._replace(text=text))


class Recaptioner:
    """Writes a new caption for every image of a record."""

    def __init__(self, parameters: Recaption, configuration: Configuration, roots: ImageRoots) -> None:
        self.settings = configuration.captioners[parameters.captioner]
        self.folder = Path(configuration.models[self.settings.model].path)
        self.seed = parameters.seed
        self.batch = self.settings.batch
        self.roots = roots
        self.facts = {
            "seed": self.seed,
            "captioner": self.settings.model_dump(mode="json", exclude={"model", "batch"}),
            "model_sha256": sha256_folder(self.folder),
        }

    @cached_property
    def model(self) -> CaptionModel:
        """The captioning model, opened when the first caption is needed."""
        prepare_offline()
        from bettersynth.captioners import load_captioner
        from bettersynth.devices import default_device

        return load_captioner(self.settings, self.folder, default_device())

    def make(self, records: Sequence[Record]) -> Iterator[Made]:
        """The records with new captions, a batch at a time."""
        for numbers in batches(range(len(records)), self.batch):
            yield dict(zip(numbers, self._made([records[number] for number in numbers]), strict=True))

    def _made(self, records: Sequence[Record]) -> list[Outcome]:
        opened = [open_images(record, self.roots) for record in records]
        whole = [(record, images) for record, images in zip(records, opened, strict=True) if isinstance(images, list)]
        keys = [image_key(record, number) for record, images in whole for number in range(len(images))]
        written = iter(self._write([image for _, images in whole for image in images], keys))
        outcomes = []
        for record, images in zip(records, opened, strict=True):
            if isinstance(images, Outcome):
                outcomes.append(images)
            else:
                outcomes.append(self._rewritten(record, [next(written) for _ in images]))
        return outcomes

    def _write(self, images: list[Image], keys: list[str]) -> list[list[str]]:
        """The candidates for each image; a batch that does not fit into the GPU's memory is halved."""
        import torch

        if not images:
            return []
        try:
            return self.model.write(images, keys, self.seed)
        except torch.OutOfMemoryError as error:
            if len(images) == 1:
                raise GeneratorError(f"record {keys[0]}: one image does not fit into the GPU's memory") from error
        half = len(images) // 2
        torch.cuda.empty_cache()
        logger.warning(
            "out of GPU memory with %d images: going on with %d; lower the captioner's `batch`", 2 * half, half
        )
        return self._write(images[:half], keys[:half]) + self._write(images[half:], keys[half:])

    def _rewritten(self, record: Record, candidates: list[list[str]]) -> Outcome:
        from bettersynth.captioners import captioned_text, keep_candidate

        original = caption_of(record.text)
        captions = []
        for number, choices in enumerate(candidates):
            key = image_key(record, number)
            caption = keep_candidate(choices, original, self.settings.keep, self.seed, key)
            if problem := caption_problem(caption):
                return Outcome(None, str(problem[0]))
            if is_refusal(caption, DEFAULTS.refusals):
                return Outcome(None, REFUSAL)
            captions.append(caption)
        return Outcome(record._replace(text=captioned_text(record.text, captions)))


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
        return Outcome(None, str(problem.reason))


def prepare_offline() -> None:
    """Keep the libraries that load models off the network."""
    with tempfile.TemporaryDirectory() as cache:
        offline.prepare(cache)

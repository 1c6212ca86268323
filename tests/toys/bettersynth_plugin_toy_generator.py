"""A verb that makes records anew, in one file: captions in capitals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.section import Section
from bettersynth.configuration.verb import Generator, Shards
from bettersynth.core.records import Record, caption_of, text_of

if TYPE_CHECKING:
    from bettersynth.configuration.types import Configuration
    from bettersynth.datasets.ledger import Outcome
    from bettersynth.datasets.step import Step
    from bettersynth.pool.images import ImageRoots
    from bettersynth.sources.base import Made


class Shouted(Generator, Section):
    """Captions in capitals: makes a source of the dataset's name."""

    says: ClassVar[str] = "Shout {shard}"
    on_gpu: ClassVar[bool] = False
    reads_images: ClassVar[bool] = False

    shards: Shards = 1

    def source_cost(self, configuration: Configuration) -> Cost:
        return Cost(100_000)

    def generator(self, source: str, configuration: Configuration, roots: ImageRoots, images: Path) -> Shouter:
        return Shouter()

    def apply(self, step: Step) -> Outcome:
        from bettersynth.datasets.generated import generated

        return generated(step)


class Shouter:
    """Makes records of captions with a `the`; others have nothing to shout."""

    resumes = False
    facts: ClassVar[dict[str, str]] = {"voice": "loud"}

    def open(self) -> None:
        """It has no model."""

    def make(self, records: Sequence[Record]) -> Iterator[Made]:
        from bettersynth.sources.base import Generation

        for place, record in enumerate(records):
            text = text_of(caption_of(record.text).upper())
            yield {
                place: Generation([record._replace(text=text)])
                if "the" in record.text
                else Generation([], "nothing loud")
            }

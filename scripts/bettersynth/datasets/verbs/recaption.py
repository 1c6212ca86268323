"""Write captions anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from bettersynth.configuration.checks import unknown
from bettersynth.configuration.cost import Cost
from bettersynth.configuration.family import captioner_family
from bettersynth.configuration.generators import BestBy, Captioner
from bettersynth.configuration.section import Name, Section, Seed
from bettersynth.configuration.verb import Generator, Parents, RowCount, Shards

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bettersynth.configuration.types import Configuration
    from bettersynth.datasets.ledger import Outcome
    from bettersynth.datasets.step import Step
    from bettersynth.pool.images import ImageRoots
    from bettersynth.sources.captioners.recaptioner import Recaptioner


class Recaption(Generator, Section):
    """Write a new caption for every row: makes a source of the dataset's name."""

    says: ClassVar[str] = "Write captions for {shard}"

    captioner: Name
    seed: Seed = 0
    keep_original: bool = Field(
        False,
        description="Whether the old row stays, before the new ones. A new record's id then ends in `~1`, as with "
        "`keep: all`: one id has one source.",
    )
    shards: Shards = 1

    @property
    def keeps_sources(self) -> bool:
        """Where the old rows stay."""
        return self.keep_original

    def makes_variants(self, configuration: Configuration) -> bool:
        """Where a row becomes several, or stays."""
        return self.keep_original or self.entry(configuration).keep == "all"

    def entry(self, configuration: Configuration) -> Captioner:
        """The captioner."""
        return configuration.captioners[self.captioner]

    def judge(self, configuration: Configuration) -> str | None:
        """The operator that chooses among candidates, if one does."""
        keep = self.entry(configuration).keep
        return keep.operator if isinstance(keep, BestBy) else None

    def work(self) -> str:
        """Captioners differ in speed."""
        return f"{self.name} {self.captioner}"

    def source_cost(self, configuration: Configuration) -> Cost:
        """The captioner family's."""
        captioner = self.entry(configuration)
        return captioner_family(captioner, configuration.models[captioner.model].path).cost

    def problems(self, key: str, configuration: Configuration) -> Iterator[str]:
        """A captioner that there is not."""
        if self.captioner not in configuration.captioners:
            yield unknown(f"{key}.captioner", "captioner", self.captioner, configuration.captioners)

    def expected(self, parents: Parents) -> RowCount:
        """For each row its new ones, and the old one where it stays."""
        captioner = self.entry(parents.configuration)
        new = captioner.candidates if captioner.keep == "all" else 1
        return RowCount(parents.rows[0] * (new + self.keep_original))

    def generator(self, source: str, configuration: Configuration, roots: ImageRoots, images: Path) -> Recaptioner:
        """The captioner with its model."""
        from bettersynth.sources.captioners.recaptioner import Recaptioner

        return Recaptioner(self.captioner, self.seed, configuration, roots, keep_original=self.keep_original)

    def apply(self, step: Step) -> Outcome:
        """The rows with their new records, and the old ones where they stay."""
        from bettersynth.datasets.generated import generated

        return generated(step, keep_original=self.keep_original)

    def brief(self) -> str:
        """By which captioner."""
        return f"recaption by {self.captioner}"

    def sentence(self, configuration: Configuration) -> str:
        """By which captioner and model."""
        model = configuration.models[self.entry(configuration).model]
        engine = f"{self.captioner} ({model.hub or model.path})"
        return f"let {engine} write a new caption for every row, seed {self.seed}"

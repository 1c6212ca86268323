"""Draw images anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bettersynth.configuration.checks import unknown
from bettersynth.configuration.cost import Cost
from bettersynth.configuration.family import redrawer_family
from bettersynth.configuration.section import Name, Section, Seed
from bettersynth.configuration.verb import Generator, Parents, RowCount, Shards

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bettersynth.configuration.generators import Redrawer
    from bettersynth.configuration.types import Configuration
    from bettersynth.datasets.ledger import Outcome
    from bettersynth.datasets.step import Step
    from bettersynth.pool.images import ImageRoots
    from bettersynth.sources.redrawers import Redrawing


class Redraw(Generator, Section):
    """Draw a new image for every row: makes a source of the dataset's name."""

    says: ClassVar[str] = "Draw images for {shard}"
    makes_images: ClassVar[bool] = True

    redrawer: Name
    seed: Seed = 0
    shards: Shards = 1

    def entry(self, configuration: Configuration) -> Redrawer:
        """The redrawer."""
        return configuration.redrawers[self.redrawer]

    def work(self) -> str:
        """Redrawers differ in speed."""
        return f"{self.name} {self.redrawer}"

    def source_cost(self, configuration: Configuration) -> Cost:
        """The redrawer family's."""
        return redrawer_family(configuration.models[self.entry(configuration).model].path).cost

    def problems(self, key: str, configuration: Configuration) -> Iterator[str]:
        """A redrawer that there is not."""
        if self.redrawer not in configuration.redrawers:
            yield unknown(f"{key}.redrawer", "redrawer", self.redrawer, configuration.redrawers)

    def expected(self, parents: Parents) -> RowCount:
        """All rows."""
        return RowCount(parents.rows[0])

    def generator(self, source: str, configuration: Configuration, roots: ImageRoots, images: Path) -> Redrawing:
        """The diffusion pipeline."""
        from bettersynth.sources.redrawers import Redrawing

        return Redrawing(source, self.redrawer, self.seed, configuration, roots, images)

    def apply(self, step: Step) -> Outcome:
        """The rows with their new records."""
        from bettersynth.datasets.generated import generated

        return generated(step)

    def brief(self) -> str:
        """By which redrawer."""
        return f"redraw by {self.redrawer}"

    def sentence(self, configuration: Configuration) -> str:
        """By which redrawer and model."""
        model = configuration.models[self.entry(configuration).model]
        engine = f"{self.redrawer} ({model.hub or model.path})"
        return f"let {engine} draw a new image for every row, seed {self.seed}"

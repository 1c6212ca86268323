"""Tidy captions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import model_validator

from bettersynth.configuration.checks import unknown
from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import LANGUAGE
from bettersynth.configuration.operators import giving
from bettersynth.configuration.verb import Generator, Shards
from bettersynth.core import versions
from bettersynth.sources.cleaning import Cleaning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bettersynth.configuration.types import Configuration
    from bettersynth.datasets.ledger import Outcome
    from bettersynth.datasets.step import Step
    from bettersynth.pool.images import ImageRoots
    from bettersynth.sources.cleaner import Cleaner


class Clean(Generator, Cleaning):
    """Caption hygiene: rewrites captions and drops those beyond repair; makes a source of the dataset's name."""

    says: ClassVar[str] = "Clean the captions of {shard}"
    on_gpu: ClassVar[bool] = False
    reads_images: ClassVar[bool] = False

    shards: Shards = 1

    @model_validator(mode="before")
    @classmethod
    def _all_defaults(cls, value: Any) -> Any:
        return {} if value is True else value

    @property
    def keeps_sources(self) -> bool:
        """Captions that were clean stay as they were."""
        return True

    def also_decides(self) -> dict[str, Any]:
        """What a word is."""
        return {"words": versions.WORDS}

    def judge(self, configuration: Configuration) -> str | None:
        """The operator that tells the language, if any."""
        return self.language.operator if self.language else None

    def source_cost(self, configuration: Configuration) -> Cost:
        """Regular expressions."""
        return Cost(20_000, start=5, bytes=130)

    def problems(self, key: str, configuration: Configuration) -> Iterator[str]:
        """An operator that tells no language."""
        tell = giving(configuration.operators, LANGUAGE)
        if self.language and self.language.operator not in tell:
            yield unknown(f"{key}.language.operator", "language operator", self.language.operator, tell)

    def generator(self, source: str, configuration: Configuration, roots: ImageRoots, images: Path) -> Cleaner:
        """The rules, and the operator that tells the language."""
        from bettersynth.sources.cleaner import Cleaner

        return Cleaner(self, configuration, roots)

    def apply(self, step: Step) -> Outcome:
        """Rows whose text did not change keep their source."""
        from bettersynth.datasets.generated import generated

        return generated(step, keep_unchanged=True)

    def brief(self) -> str:
        """That captions are cleaned."""
        return "clean captions"

    def sentence(self, configuration: Configuration) -> str:
        """What is mended and how long a caption may be."""
        bounds = f"{self.min_words} to {self.max_words:,} words"
        return f"mend the captions (advertising, repeated words) and drop those beyond repair: {bounds} stay"

"""The typed configuration: every key, its default, its range and its meaning, with the modules beside this one.

These types are the single source: ``config/schema.json`` and ``docs/configuration.md`` are generated
from them (``make reference``), and a test shows the difference when they are stale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model, field_validator

from bettersynth.configuration.benchmark import Benchmark
from bettersynth.configuration.datasets import Analysis, Dataset, ExportFormat
from bettersynth.configuration.evaluation import BENCHMARKS, Evaluation
from bettersynth.configuration.generators import Captioner, Redrawer
from bettersynth.configuration.pool import Model, Operator, Pool, Scoring
from bettersynth.configuration.section import Name, Section, Seed
from bettersynth.configuration.training import Training, Trainset


class _Published(Section):
    row: str | None = Field(None, description="Row of the ledger of published experiments (`docs/contest.md`).")
    rows: int | None = Field(None, ge=0, description="Rows before the cap.")
    tolerance: float = Field(0.02, ge=0, description="Share by which our rows may differ from the published ones.")
    if TYPE_CHECKING:  # the last of the keys
        source: str | None

    @property
    def ratios(self) -> dict[str, float]:
        """What is stated of benchmarks, by name."""
        stated = {name: getattr(self, name) for name in BENCHMARKS}
        return {name: ratio for name, ratio in stated.items() if ratio is not None}


if TYPE_CHECKING:
    Published = _Published
else:
    Published = create_model(
        "Published",
        __base__=_Published,
        __module__=__name__,
        __doc__="What the write-up states of a recipe.",
        **{
            name: (float | None, Field(None, ge=0, description=f"{kind.title}: ratio to the baseline."))
            for name, kind in BENCHMARKS.items()
        },
        source=(str | None, Field(None, description="Where it is stated.")),
    )


class Recipe(Section):
    """A dataset that is trained and evaluated."""

    dataset: Name
    seeds: list[Seed] = Field(default_factory=lambda: [1], min_length=1)
    published: Published | None = None
    trainset: dict[str, Any] = Field(
        default_factory=dict, description="Keys of `trainset` that differ for this recipe."
    )
    training: dict[str, Any] = Field(
        default_factory=dict, description="Keys of `training`, nested, that differ for this recipe."
    )
    note: str | None = Field(None, description="A line for the leaderboard.")

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("the same seed is listed twice")
        return seeds


class Report(Section):
    """What the report shows."""

    baseline: Name | None = Field(
        None, description="Recipe the leaderboard is relative to; the first one if not given."
    )
    truth: str | None = Field(
        None,
        description="Parquet of the records' known truth (the miniature's), for precision and recall of each filter.",
    )
    title: str = "Which pairs make the better model?"


class Configuration(Section):
    """Everything that decides what is made."""

    name: Name | None = Field(None, description="Folder under `results/`; the configuration file's name if not given.")
    pool: Pool
    models: dict[Name, Model] = Field(default_factory=dict)
    operators: dict[Name, Operator] = Field(default_factory=dict)
    scoring: Scoring = Scoring()
    captioners: dict[Name, Captioner] = Field(default_factory=dict)
    redrawers: dict[Name, Redrawer] = Field(default_factory=dict)
    datasets: dict[Name, Dataset] = Field(default_factory=dict)
    analyses: dict[Name, Analysis] = Field(default_factory=dict)
    trainset: Trainset = Trainset()
    training: Training | None = Field(None, description="Needed by recipes; leave out to stop at datasets.")
    evaluation: Evaluation | None = Field(None, description="Needed by recipes.")
    recipes: dict[Name, Recipe] = Field(default_factory=dict)
    exports: dict[Name, list[ExportFormat]] = Field(
        default_factory=dict, description="Datasets to write out, and the formats."
    )
    report: Report = Report()

    @property
    def benchmarks(self) -> dict[str, Benchmark]:
        """The benchmarks that its runs are evaluated on, by name; none without `evaluation`."""
        return self.evaluation.benchmarks if self.evaluation else {}

    @property
    def trains(self) -> bool:
        """Whether records become training files: of recipes, or exported ones."""
        return bool(self.recipes) or any("llava" in forms for forms in self.exports.values())

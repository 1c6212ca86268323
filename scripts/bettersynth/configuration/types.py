"""The typed configuration: every key, its default, its range and its meaning, with the modules beside this one.

These types are the single source: ``config/schema.json`` and ``docs/configuration.md`` are generated
from them (``make reference``), and a test shows the difference when they are stale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, create_model, field_validator

from bettersynth.configuration.benchmark import Benchmark
from bettersynth.configuration.datasets import Analysis, Dataset, ExportFormat
from bettersynth.configuration.evaluation import BENCHMARKS, Evaluation
from bettersynth.configuration.generators import Captioner, Redrawer
from bettersynth.configuration.pool import Model, Operator, Pool, Scoring
from bettersynth.configuration.section import Name, Section, Seed
from bettersynth.configuration.training import Training, Trainset
from bettersynth.core.records import POOL


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


class Control(Section):
    """A recipe's fair opponent: a random part as large as its dataset, cut, filled and trained in the same way."""

    from_: Name = Field(POOL, alias="from", description="`pool`, or the dataset that the part is drawn of.")
    seed: Seed = Field(0, description="Decides, with the ids, which part.")

    model_config = ConfigDict(populate_by_name=True)


Controlled = Literal["random"] | Control
"""`random` is a control with the defaults."""


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
    control: Controlled | Literal["none"] | None = Field(
        None,
        description="Adds a recipe `random_like_…`: as many ids as the dataset has, of all pairs (`random`) or of "
        "those that a mapping names, each as often, with the same seeds, cap and training. Recipes whose sizes must "
        "be equal share one. Not given: as the key `control` of the whole configuration says.",
    )
    control_of: list[Name] = Field(
        default_factory=list,
        description="Recipes that this one is the control of. `control` writes it; give it for one of your own.",
    )

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
    price_per_gpu_hour: float | None = Field(
        None,
        ge=0,
        description="What an hour of one GPU costs, in any currency: the leaderboard adds up what runs cost.",
    )
    tracker: Literal["mlflow"] | None = Field(
        None,
        description="Also writes the runs for this experiment tracker: `report/mlflow.db`, without a server. "
        "TensorBoard's event files are always written: `report/tensorboard`.",
    )


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
    held_out: Name | None = Field(
        None,
        description="Dataset whose pairs no recipe trains on, such as 256 of the pool: each run's loss on them is "
        "measured at the rungs of `training.probe` and at the end of stage 1, and seeds are picked by it.",
    )
    control: Controlled | None = Field(
        None, description="The control of every recipe that has no `control` of its own and is no random part itself."
    )
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

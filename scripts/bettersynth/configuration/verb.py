"""What a verb is: all that the library knows of it stands in one module, and nothing else asks for its name.

To add a verb, write one file: `scripts/bettersynth/datasets/verbs/<verb>.py` here, or `bettersynth_plugin_<any>.py` in
a folder that PYTHONPATH names. It defines a class, whose name in lower case is the verb's key in a dataset:

    from typing import Annotated

    from pydantic import Field

    from bettersynth.configuration.section import Value
    from bettersynth.configuration.verb import Verb
    from bettersynth.datasets.ledger import Outcome, Reasons, split

    class Head(Verb, Value[Annotated[int, Field(ge=1)]]):
        "Keep the first rows of the parent."

        def apply(self, step) -> Outcome:
            reasons = Reasons(step.rows.num_rows)
            reasons.drop(range(self.root, step.rows.num_rows), "beyond the first", str(self.root))
            return split(step.rows, reasons)

        def brief(self) -> str:
            return f"first {self.root:,}"

- `Value[…]` is for a verb with one parameter (`head: 100`), which is in `self.root`; a verb with keys of its own is a
  `Verb, Section` with fields. Limits, defaults and descriptions are pydantic's.
- `apply` alone is needed. `step` is a `bettersynth.datasets.step.Step`: rows of the parents, their scores and records.
  The docstrings of `Verb` say what else can be told, and when it is to be.
- The module is read whenever the graph is built, so what is slow to import (pandas, `bettersynth.datasets.step`) is
  imported inside `apply`, or for annotations under `TYPE_CHECKING`.
- A verb that makes records anew is a `Generator`; `tests/toys/bettersynth_plugin_toy_generator.py` is a whole one.
- `make reference` writes the verb into the schema and the reference page. A test applies it to rows in memory
  (`MemoryStep` in `tests/support/pairs.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, Field, field_validator

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.section import Name, Value
from bettersynth.configuration.threshold import Threshold
from bettersynth.core.names import StatKey

if TYPE_CHECKING:
    from bettersynth.configuration.generators import Captioner, Redrawer
    from bettersynth.configuration.types import Configuration

Shards = Annotated[int, Field(ge=1, le=9999)]


class Parents(NamedTuple):
    """What is known of a dataset's parents before the dataset is made."""

    rows: tuple[int, ...]
    """Rows of `from`, then those of the others."""
    configuration: Configuration
    pool_file: Callable[[str], int] | None
    """Rows of a file of the pool, where `from` is the pool."""


class RowCount(NamedTuple):
    """A number of rows to expect: so many, or at most so many."""

    number: int
    is_exact: bool = True


class Verb(BaseModel):
    """What one dataset does with the rows of its parent: the verb with its parameters."""

    name: ClassVar[str]
    """The key in a dataset: the class's name in lower case."""
    kind: ClassVar[Literal["choice", "generator", "splice"]] = "choice"
    """How it is drawn."""
    takes_rows: ClassVar[bool] = False
    """Whether rows of the other parents can be among its own."""
    makes_records: ClassVar[bool] = False
    """Whether it makes a source: whether it is a `Generator`."""
    is_random: ClassVar[bool] = False
    """Whether it draws a part of its rows at random."""
    cost: ClassVar[Cost] = Cost(200_000, start=5, bytes=20)
    """What choosing the rows costs, for each row of `from`: a guess, until a job has been measured."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.name = cls.__name__.lower()

    # what it reads
    def others(self) -> list[str]:
        """Datasets that it reads beside `from`."""
        return []

    def apart_from_parents(self) -> Any:
        """Its parameters without names of datasets, in JSON's types: two datasets alike in these and in their parents
        are the same."""
        return self.model_dump(mode="json", exclude_none=True)

    def also_decides(self) -> dict[str, Any]:
        """What decides its result beside its parameters: versions of what they mean, in JSON's types.

        A new version makes again what was made by an older one.
        """
        return {}

    def operators(self, configuration: Configuration) -> list[str]:
        """Operators whose scores of `from`'s rows it reads."""
        return []

    def thresholds(self) -> dict[StatKey, Threshold]:
        """Bounds that it drops rows by; the report shows them beside the scores' distributions."""
        return {}

    @property
    def reads_records(self) -> bool:
        """Whether it reads the records of `from`'s rows, not only their ids."""
        return False

    @property
    def reads_asked(self) -> bool:
        """Whether it reads which rows the generators above it were asked to make anew."""
        return False

    @property
    def keeps_sources(self) -> bool:
        """Whether rows of its parents can be among its own as they were."""
        return True

    def problems(self, key: str, configuration: Configuration) -> Iterable[str]:
        """What cannot be meant in view of other sections, each beginning with the key (`key` is the verb's)."""
        return ()

    @property
    def times(self) -> int | None:
        """How often it has each id of `from`, where it leaves none out whatever the rows; else None."""
        return None

    # what it does
    def expected(self, parents: Parents) -> RowCount:
        """Rows that will come out, as far as that is known."""
        return RowCount(parents.rows[0], is_exact=False)

    def apply(self, step: Any) -> Any:
        """The rows that stay and those that go, of a `bettersynth.datasets.step.Step`: an `Outcome` of
        `bettersynth.datasets.ledger`."""
        raise NotImplementedError(f"the verb `{self.name}` has no method `apply`")

    # in words
    def brief(self) -> str:
        """What it does in one short line, or a line for each part: for drawings and the report."""
        return self.name

    def sentence(self, configuration: Configuration) -> str:
        """What it does to the rows of `from`, for a person who does not know the verb."""
        return f"{self.name} {self.model_dump(mode='json', exclude_none=True)}"


class Generator(Verb):
    """A verb that makes records anew: a source of the dataset's name, in shards, by jobs of the rule of its own name.

    Its class has a field `shards: Shards = 1` and the methods `apply` (`bettersynth.datasets.generated.generated`
    joins what was made to the parent's rows) and `generator`.
    """

    kind: ClassVar[Literal["choice", "generator", "splice"]] = "generator"
    makes_records: ClassVar[bool] = True
    says: ClassVar[str] = "Make {shard}"
    """What Snakemake says of a job."""
    on_gpu: ClassVar[bool] = True
    """Whether a job of its rule needs a GPU."""
    makes_images: ClassVar[bool] = False
    """Whether its records have images of their own."""
    reads_images: ClassVar[bool] = True
    """Whether a job opens the images of its records."""
    if TYPE_CHECKING:
        shards: int

    @property
    def keeps_sources(self) -> bool:
        """Whether rows can stay as they were, beside new ones or where nothing was to be changed."""
        return False

    def makes_variants(self, configuration: Configuration) -> bool:
        """Whether its records have ids of their own: a row becomes several, or stays beside its new one."""
        return False

    def entry(self, configuration: Configuration) -> Captioner | Redrawer | None:
        """The model that makes the records, as the configuration defines it."""
        return None

    def judge(self, configuration: Configuration) -> str | None:
        """The operator that it scores what it made by, if any."""
        return None

    def work(self) -> str:
        """The kind of its work, for costs: jobs of one kind are equally fast."""
        return self.name

    def source_cost(self, configuration: Configuration) -> Cost:
        """What its work costs, for each row that it is asked for; `cost` is of the dataset's rows."""
        return Cost(2, start=60, bytes=60_000)

    def generator(self, source: str, configuration: Configuration, roots: Any, images: Any) -> Any:
        """What makes the records: a `bettersynth.sources.base.Generator`.

        `roots` (`bettersynth.pool.images.ImageRoots`) opens images; new ones go into the folder `images`.
        """
        raise NotImplementedError(f"the verb `{self.name}` has no method `generator`")


class Names(Verb, Value[Annotated[list[Name], Field(min_length=1)]]):
    """A verb whose only parameter is a list of names; one alone needs no list."""

    @field_validator("root", mode="before")
    @classmethod
    def _single(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class OtherDatasets(Names):
    """A verb about the rows of `from` and of other datasets."""

    def others(self) -> list[str]:
        """The names."""
        return self.root

    def apart_from_parents(self) -> Any:
        """Nothing: the verb is all there is."""
        return True

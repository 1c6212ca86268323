"""Datasets: a parent and one verb each. Verbs are modules of `bettersynth.datasets.verbs`, and plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import ConfigDict, Field, create_model, model_validator

from bettersynth.configuration import registry
from bettersynth.configuration.section import Name, Section
from bettersynth.configuration.verb import Generator, Verb

ExportFormat = Literal["data_juicer", "llava", "parquet", "huggingface", "webdataset"]
EXPORT_FORMATS: tuple[str, ...] = get_args(ExportFormat)

VERBS: dict[str, type[Verb]] = registry.by_name(registry.subclasses("bettersynth.datasets.verbs", Verb))
"""All verbs by name."""
GENERATORS = {name: verb for name, verb in VERBS.items() if issubclass(verb, Generator)}
"""Verbs that make a new source."""


class _Node(Section):
    """A named node: a parent and exactly one verb."""

    from_: Name = Field(alias="from", description="`pool` or another dataset.")
    note: str | None = Field(None, description="A line for the report; changing it makes nothing again.")
    published_rows: int | None = Field(None, ge=0, description="Rows that the write-up states, for comparison.")

    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="after")
    def _exactly_one_verb(self) -> _Node:
        given = [name for name in VERBS if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) if given else "none"
            raise ValueError(f"a dataset has exactly one verb of {', '.join(VERBS)}; found {found}")
        return self

    @property
    def verb(self) -> Verb:
        """The one verb, with its parameters."""
        return next(verb for name in VERBS if (verb := getattr(self, name)) is not None)

    @property
    def parents(self) -> list[str]:
        """All datasets this one reads, `from` first."""
        return [self.from_, *self.verb.others()]

    @property
    def row_parents(self) -> list[str]:
        """Parents whose rows can be among this one's."""
        return self.parents if self.verb.takes_rows else [self.from_]


if TYPE_CHECKING:
    Dataset = _Node
else:
    keys: dict[str, Any] = {name: (verb | None, None) for name, verb in VERBS.items()}
    Dataset = create_model("Dataset", __base__=_Node, __doc__=_Node.__doc__, __module__=__name__, **keys)


class StatedFigures(Section):
    """What was published of one score's distribution."""

    quartiles: list[float] | None = Field(None, min_length=3, max_length=3, description="25 %, 50 % and 75 %.")
    mean: float | None = None
    sd: float | None = Field(None, ge=0, description="Standard deviation.")


class Analysis(Section):
    """How scores are distributed over a dataset, as Data-Juicer's `dj-analyze` tells it."""

    dataset: Name = Field(description="`pool` or a dataset.")
    operators: list[str] = Field(min_length=1, description="Operators, or `operator.stat`, that score numbers.")
    row: str | None = Field(None, description="Row of the ledger of published experiments (`docs/contest.md`).")
    published: dict[str, StatedFigures] = Field(
        default_factory=dict, description="Published figures, by entry of `operators`, shown beside ours."
    )
    note: str | None = Field(None, description="A line for the report.")

    @model_validator(mode="after")
    def _published_are_analysed(self) -> Analysis:
        others = ", ".join(key for key in self.published if key not in self.operators)
        if others:
            raise ValueError(f"published figures of {others}, which `operators` does not name")
        return self

"""Datasets: a parent and one verb each, and the verbs' parameters."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import ConfigDict, Field, field_validator, model_validator

from bettersynth.configuration.section import Name, Section, Seed

ExportFormat = Literal["data_juicer", "llava", "parquet", "webdataset"]
EXPORT_FORMATS: tuple[str, ...] = get_args(ExportFormat)


class Threshold(Section):
    """Data-Juicer's keep rule: a closed interval over the values of one record."""

    min: float | None = Field(None, allow_inf_nan=False, description="Smallest value kept.")
    max: float | None = Field(None, allow_inf_nan=False, description="Largest value kept.")
    one_of: list[str] | None = Field(None, description="Values kept of a score that is a word (language id).")
    any_or_all: Literal["any", "all"] = Field(
        "any", description="Whether one value inside is enough or every value must be."
    )

    @model_validator(mode="after")
    def _possible(self) -> Threshold:
        if self.min is None and self.max is None and not self.one_of:
            raise ValueError("a threshold needs `min`, `max` or `one_of`")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: nothing could be kept")
        return self


class Rank(Section):
    """Order rows by a score and keep a run of the best."""

    by: dict[str, float] = Field(min_length=1, description="Operators and their weights; a single name means weight 1.")
    top: int | None = Field(None, ge=1, description="Rows to keep.")
    fraction: float | None = Field(None, gt=0, le=1, description="Share of the rows to keep, instead of `top`.")
    skip: int = Field(0, ge=0, description="Best rows to leave out first.")
    descending: bool = Field(True, description="Whether the largest score is the best.")
    normalise: Literal["none", "min_max"] = Field(
        "none", description="Scale each score to 0…1 over the parent's rows before the weighted sum."
    )

    @field_validator("by", mode="before")
    @classmethod
    def _single(cls, value: Any) -> Any:
        return {value: 1.0} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_size(self) -> Rank:
        if (self.top is None) == (self.fraction is None):
            raise ValueError("give either `top` or `fraction`")
        return self


class Sample(Section):
    """A random part, chosen by seed and record id: the same rows whatever their order."""

    rows: int | None = Field(None, ge=1)
    fraction: float | None = Field(None, gt=0, le=1)
    seed: Seed = 0

    @model_validator(mode="after")
    def _one_size(self) -> Sample:
        if (self.rows is None) == (self.fraction is None):
            raise ValueError("give either `rows` or `fraction`")
        return self


class Resample(Section):
    """Draw rows with replacement, by seed and record id: some appear several times, others not at all."""

    rows: int = Field(ge=1, description="Rows to draw; may be more than there are.")
    seed: Seed = 0


class Bands(Section):
    """Shares of a cluster's rows by distance from its centre: its nearest third, its middle third, its farthest."""

    near: float = Field(0.25, ge=0, le=1)
    middle: float = Field(0.5, ge=0, le=1)
    far: float = Field(0.25, ge=0, le=1)

    @model_validator(mode="after")
    def _whole(self) -> Bands:
        total = self.near + self.middle + self.far
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the shares near, middle and far add up to {total:g}, not to 1")
        return self


class Cluster(Section):
    """A random part that is spread over clusters of like rows: k-means over a vector score."""

    by: Name = Field(description="Operator whose score is a vector, such as `text_embedding`.")
    clusters: int = Field(ge=1, le=65536, description="Number of clusters.")
    rows: int = Field(ge=1, description="Rows to keep.")
    share: Literal["uniform", "proportional"] = Field(
        "uniform", description="As many rows from every cluster, as far as it has them, or as many as befit its size."
    )
    bands: Bands | None = Field(None, description="Shares by distance from the centre; random without.")
    seed: Seed = 0


class Recaption(Section):
    """Write a new caption for every row: makes a source of the dataset's name."""

    captioner: Name
    seed: Seed = 0
    keep_original: bool = Field(
        False,
        description="Whether the old row stays, before the new ones. A new record's id then ends in `~1`, as with "
        "`keep: all`: one id has one source.",
    )
    shards: int = Field(1, ge=1, le=9999)


class Redraw(Section):
    """Draw a new image for every row: makes a source of the dataset's name."""

    redrawer: Name
    seed: Seed = 0
    shards: int = Field(1, ge=1, le=9999)


class Language(Section):
    """Languages that captions may be in."""

    operator: Name = Field(description="Entry of `operators` with `op: language_id_score_filter`.")
    one_of: list[str] = Field(default_factory=lambda: ["en"], min_length=1, description="Languages kept.")
    min: float = Field(0.3, ge=0, le=1, description="Least confidence; a caption is short, and so is it.")


class Clean(Section):
    """Caption hygiene: rewrites captions and drops those beyond repair; makes a source of the dataset's name."""

    remove_phrases: list[str] = Field(
        default_factory=lambda: ["stock photo", "stock photos", "royalty free", "getty images", "© "],
        description="Cut from the end of a caption, with the punctuation before it.",
    )
    remove_control: bool = Field(True, description="Take control tokens such as `<eos>` or `<|im_end|>` out.")
    collapse_repeats: int = Field(
        8,
        ge=0,
        le=64,
        description="Longest run of words that is written once when it is repeated at once; 0 for none. In scripts "
        "without blanks (Chinese, Japanese, Thai …) a letter is a word.",
    )
    min_words: int = Field(1, ge=0)
    max_words: int = Field(10_000, ge=1)
    max_repetition: float = Field(
        1.0, ge=0, le=1, description="Largest share of words (of runs of words) that are repetitions of an earlier one."
    )
    repetition_words: int = Field(1, ge=1, le=64, description="Words of the runs that `max_repetition` counts.")
    refusals: list[str] = Field(
        default_factory=lambda: [
            *("i'm sorry", "i am sorry", "sorry, ", "i cannot", "i can't", "i'm unable", "i am unable", "i'm not able"),
            *("i am not able", "unfortunately, i", "as an ai"),
        ],
        description="A caption that begins so is an answer refused, not a caption.",
    )
    language: Language | None = Field(None, description="Captions in other languages are dropped.")
    shards: int = Field(1, ge=1, le=9999)


class Splice(Section):
    """Replace rows by those of another dataset with the same id; order and multiplicity stay."""

    dataset: Name = Field(description="Dataset whose rows go in.")
    unmatched: Literal["keep", "drop"] = Field(
        "keep",
        description="What becomes of a row that was rewritten, but whose new version is not in `dataset`: "
        "the original stays, or it goes.",
    )


class Dedup(Section):
    """Keep the first row of each group of equal or near-equal rows."""

    by: Literal["text", "image"] = "text"
    near: bool = Field(False, description="Near-duplicates too, not only equal ones.")
    similarity: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Jaccard similarity of 3-word shingles (text, near); in scripts without blanks a letter is a word.",
    )
    distance: int = Field(4, ge=0, le=32, description="Hamming distance of 64-bit perceptual hashes (image, near).")


VERBS = (
    "files",
    "filter",
    "rank",
    "sample",
    "resample",
    "cluster",
    "union",
    "intersect",
    "subtract",
    "recaption",
    "redraw",
    "splice",
    "repeat",
    "dedup",
    "clean",
)


GENERATORS = ("recaption", "redraw", "clean")
"""Verbs that make a new source."""


class Dataset(Section):
    """A named node: a parent and exactly one verb."""

    from_: Name = Field(alias="from", description="`pool` or another dataset.")
    note: str | None = Field(None, description="A line for the report; changing it makes nothing again.")
    published_rows: int | None = Field(None, ge=0, description="Rows that the write-up states, for comparison.")
    files: list[Name] | None = Field(
        None, min_length=1, description="Keep rows whose record came from these pool files."
    )
    filter: dict[str, Threshold] | None = Field(
        None, description="Operator (or `operator.stat`) and its threshold; every one must hold."
    )
    rank: Rank | None = None
    sample: Sample | None = None
    resample: Resample | None = None
    cluster: Cluster | None = None
    union: list[Name] | None = Field(
        None, min_length=1, description="Datasets to add; of rows with one id the first stays."
    )
    intersect: list[Name] | None = Field(None, min_length=1, description="Keep rows whose id is in all of these.")
    subtract: list[Name] | None = Field(None, min_length=1, description="Drop rows whose id is in any of these.")
    recaption: Recaption | None = None
    redraw: Redraw | None = None
    splice: Splice | None = None
    repeat: int | None = Field(None, ge=1, le=1000, description="Times every row appears.")
    dedup: Dedup | None = None
    clean: Clean | None = None

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @field_validator("files", "union", "intersect", "subtract", mode="before")
    @classmethod
    def _single_name(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("splice", mode="before")
    @classmethod
    def _splice_name(cls, value: Any) -> Any:
        return {"dataset": value} if isinstance(value, str) else value

    @field_validator("clean", "dedup", mode="before")
    @classmethod
    def _all_defaults(cls, value: Any) -> Any:
        return {} if value is True else value

    @model_validator(mode="after")
    def _exactly_one_verb(self) -> Dataset:
        given = [verb for verb in VERBS if getattr(self, verb) is not None]
        if len(given) != 1:
            found = " and ".join(given) if given else "none"
            raise ValueError(f"a dataset has exactly one verb of {', '.join(VERBS)}; found {found}")
        return self

    @property
    def verb(self) -> str:
        """The one verb's name."""
        return next(verb for verb in VERBS if getattr(self, verb) is not None)

    @property
    def parameters(self) -> Any:
        """The verb's parameters: a `Section`, a dict of thresholds, a list of names or a number."""
        return getattr(self, self.verb)

    @property
    def parents(self) -> list[str]:
        """All datasets this one reads, `from` first."""
        if self.verb in ("union", "intersect", "subtract"):
            return [self.from_, *self.parameters]
        if self.splice:
            return [self.from_, self.splice.dataset]
        return [self.from_]


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

"""Keep a random part that is spread over clusters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from bettersynth.configuration.checks import kinds, unknown
from bettersynth.configuration.section import Name, Section, Seed
from bettersynth.configuration.verb import Parents, RowCount, Verb
from bettersynth.core.names import StatKey
from bettersynth.datasets.ledger import Outcome, Reasons, split
from bettersynth.datasets.order import random_order

if TYPE_CHECKING:
    from bettersynth.configuration.types import Configuration
    from bettersynth.core.vectors import Vectors
    from bettersynth.datasets.step import Step


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


class Cluster(Verb, Section):
    """A random part that is spread over clusters of like rows: k-means over a vector score."""

    by: Name = Field(description="Operator whose score is a vector, such as `text_embedding`.")
    clusters: int = Field(ge=1, le=65536, description="Number of clusters.")
    rows: int = Field(ge=1, description="Rows to keep.")
    share: Literal["uniform", "proportional"] = Field(
        "uniform", description="As many rows from every cluster, as far as it has them, or as many as befit its size."
    )
    bands: Bands | None = Field(None, description="Shares by distance from the centre; random without.")
    seed: Seed = 0

    def operators(self, configuration: Configuration) -> list[str]:
        """The one of the vectors."""
        return [self.by]

    def problems(self, key: str, configuration: Configuration) -> Iterator[str]:
        """An operator that there is not, or whose score is no vector."""
        vectors = [name for name in configuration.operators if "vector" in kinds(configuration, name)]
        if self.by not in configuration.operators:
            yield unknown(f"{key}.by", "operator", self.by, vectors)
        elif self.by not in vectors:
            named = ", ".join(vectors) or "no operator"
            yield f"{key}.by: the score of `{self.by}` is no vector; those of {named} are"

    def expected(self, parents: Parents) -> RowCount:
        """As many as are asked for, if there are."""
        return RowCount(min(self.rows, parents.rows[0]))

    def apply(self, step: Step) -> Outcome:
        """Rows without a vector go. Within a cluster, or a band of its distances, seed and ids decide."""
        from bettersynth.datasets.clusters import as_matrix

        scores = step.scores(self.by)
        (stat,) = (name for name in scores.column_names if name != "id")
        vectors, reasons = scores[stat], Reasons(step.rows.num_rows)
        reasons.drop(vectors.is_null().to_numpy(), str(StatKey(self.by, stat)), "no value")
        known = np.flatnonzero(reasons.stays)
        if len(known):
            order = random_order(step.rows.take(pa.array(known)), self.seed)
            left_out = np.ones(step.rows.num_rows, bool)
            left_out[known[self._chosen(as_matrix(vectors, len(known)), order)]] = False
            reasons.drop(left_out, "not sampled")
        return split(step.rows, reasons)

    def _chosen(self, vectors: Vectors, order: Any) -> Any:
        """Places of the rows that stay; `order` is all places at random."""
        from bettersynth.datasets.clusters import POINTS_PER_CLUSTER, by_distance, evenly, fit, in_proportion, nearest

        count = min(self.clusters, len(vectors))
        centres = fit(vectors[order[: POINTS_PER_CLUSTER * count]], count, self.seed)
        labels, cosines = nearest(vectors, centres)
        sizes = np.bincount(labels, minlength=count)
        members = np.split(order[np.argsort(labels[order], kind="stable")], np.cumsum(sizes)[:-1])
        share = evenly if self.share == "uniform" else in_proportion
        quotas = share(min(self.rows, len(vectors)), sizes.tolist())
        if self.bands is None:
            return np.concatenate([places[:quota] for places, quota in zip(members, quotas, strict=True)])
        shares = [self.bands.near, self.bands.middle, self.bands.far]
        parts = (by_distance(*member, cosines, shares) for member in zip(members, quotas, strict=True))
        return np.concatenate(list(parts))

    def brief(self) -> str:
        """How many rows, of how many clusters."""
        return f"{self.rows:,} from {self.clusters} clusters by {self.by}"

    def sentence(self, configuration: Configuration) -> str:
        """How many rows, of how many clusters, and how they are shared out."""
        shares = {"uniform": "alike from each", "proportional": "by size from each"}[self.share]
        bands = self.bands
        near = f" ({bands.near:.0%} near its centre, {bands.middle:.0%} midway, {bands.far:.0%} far)" if bands else ""
        return f"find {self.clusters} clusters by {self.by} and draw {self.rows:,} rows, {shares}{near}"

"""How many rows a dataset has or, before it is made, will have as far as that is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from bettersynth.configuration.datasets import Dataset
from bettersynth.configuration.recipes import recipe_trainset
from bettersynth.configuration.types import Configuration
from bettersynth.configuration.verb import Parents
from bettersynth.core.cached import cached_method
from bettersynth.core.layout import Layout
from bettersynth.core.names import ShardName
from bettersynth.core.publish import read_json
from bettersynth.core.records import POOL
from bettersynth.workflow.digests import is_here, shard_digests
from bettersynth.workflow.plan import Plan


class Basis(IntEnum):
    """What a number of rows rests on, the surest first."""

    MADE = 0
    """Results are there and belong to the present configuration."""
    APPLIED = 1
    """Its verb was applied to the rows and scores that are there, without making anything."""
    COUNTED = 2
    """Records in the raw files, before their images were looked at."""
    PUBLISHED = 3
    """The configuration states it as published."""
    RECKONED = 4
    """It follows from its parents' rows, or what is known of them."""
    AT_MOST = 5
    """What a filter keeps is not known before it runs."""


class Rows(NamedTuple):
    """A number of rows and what it rests on."""

    number: int
    basis: Basis

    def __str__(self) -> str:
        words = {
            Basis.MADE: "{} rows",
            Basis.APPLIED: "{} rows, by the scores that are there",
            Basis.COUNTED: "{} rows, by the raw files",
            Basis.PUBLISHED: "{} rows, as published",
            Basis.RECKONED: "{} rows, by those of its parents",
            Basis.AT_MOST: "at most {} rows",
        }
        return words[self.basis].format(f"{self.number:,}")


class Expected:
    """Rows of the datasets, shards and training files of one configuration, from results and published figures."""

    def __init__(self, configuration: Configuration, layout: Layout, plan: Plan) -> None:
        self.configuration = configuration
        self.layout = layout
        self.plan = plan
        self._applied: Callable[[str], int | None] = lambda dataset: None

    def apply_by(self, applied: Callable[[str], int | None]) -> None:
        """Ask this how many rows a dataset's verb leaves of what is there, None where that is not to be known yet.

        Verbs work on rows, which nothing in this package opens: `bettersynth.datasets.trial` does.
        """
        self._applied = applied

    @cached_method
    def card(self, dataset: str) -> dict[str, Any] | None:
        """The dataset's card, if there is one and it belongs to the present definition and the present parents."""
        path = self.layout.dataset_card(dataset)
        if not path.exists():
            return None
        card = read_json(path)
        if dataset == POOL:
            return card
        node = self.plan.dataset(dataset)
        parents = {parent: self.card(parent) for parent in node.parents}
        same = card["parameters"] == node.verb.model_dump(mode="json", exclude_none=True) and card["inputs"] == {
            name: parent and parent["sha256"] for name, parent in parents.items()
        }
        return card if same else None

    def published(self, dataset: str) -> int | None:
        """Rows that the configuration states as published, of the dataset or of a recipe that trains on it."""
        stated = [self.plan.dataset(dataset).published_rows] if dataset != POOL else []
        recipes = self.configuration.recipes.values()
        stated += [recipe.published.rows for recipe in recipes if recipe.dataset == dataset and recipe.published]
        return next((rows for rows in stated if rows is not None), None)

    @cached_method
    def rows(self, dataset: str) -> Rows:
        """Rows of a dataset, or of the pool."""
        if card := self.card(dataset):
            return Rows(card["rows"], Basis.MADE)
        if dataset == POOL and (counted := sum(self._raw_records().values())):
            return Rows(counted, Basis.COUNTED)
        if dataset != POOL and (applied := self._applied(dataset)) is not None:
            return Rows(applied, Basis.APPLIED)
        if (published := self.published(dataset)) is not None:
            return Rows(published, Basis.PUBLISHED)
        return Rows(0, Basis.COUNTED) if dataset == POOL else self._reckoned(self.plan.dataset(dataset))

    def _reckoned(self, node: Dataset) -> Rows:
        """What the verb makes of its parents' rows."""
        parents = [self.rows(parent) for parent in node.parents]
        pool_file = (lambda name: self.file(name).number) if node.from_ == POOL else None
        known = Parents(tuple(rows.number for rows in parents), self.configuration, pool_file)
        number, is_exact = node.verb.expected(known)
        return Rows(number, max(parents[0].basis, Basis.RECKONED) if is_exact else Basis.AT_MOST)

    def file(self, name: str) -> Rows:
        """Records of one raw file."""
        return total(
            self.shard(POOL, shard) for shard in self.plan.shards(POOL) if ShardName.parse(shard).prefix == name
        )

    def shard(self, source: str, shard: str) -> Rows:
        """Records of one shard of a source."""
        if source != POOL:
            asked, shards = self.rows(self.plan.dataset(source).from_), self.plan.shards(source)
            each, rest = divmod(asked.number, len(shards))
            return Rows(each + (shards.index(shard) < rest), asked.basis)
        ledger = self.layout.file_ledger(ShardName.parse(shard).prefix)
        if ledger.exists() and shard in (made := read_json(ledger)["shards"]):
            return Rows(made[shard]["rows"], Basis.MADE)
        records = self._raw_records()
        if sum(records.values()):
            return Rows(records[shard], Basis.COUNTED)
        pool = self.rows(POOL)
        return Rows(-(-pool.number // len(records)), pool.basis)

    @cached_method
    def _raw_records(self) -> dict[str, int]:
        """Records of the pool's shards as the raw files have them; those of a missing file are none."""
        found = dict.fromkeys(self.plan.shards(POOL), 0)
        for file in self.configuration.pool.files:
            if is_here(file):
                found |= shard_digests(self.configuration.pool, file, self.layout.digests).records
        return found

    def trainset(self, recipe: str) -> Rows:
        """Rows of a recipe's training file, without held-out pairs, cut or filled up to the cap."""
        held_out = self.configuration.held_out
        read = self.plan.read_by(recipe)
        cards, path = [self.card(dataset) for dataset in read], self.layout.trainset_card(recipe)
        if held_out is not None and all(cards) and path.exists():
            made = read_json(path)
            if all(made["inputs"].get(name) == card["sha256"] for name, card in zip(read, cards, strict=True) if card):
                return Rows(made["rows"], Basis.MADE)
        count, basis = self.rows(read[0])
        rows = recipe_trainset(self.configuration, recipe).rows(count)
        return Rows(rows, basis if held_out is None else Basis.AT_MOST)


def total(parts: Iterable[Rows]) -> Rows:
    """All parts together, as sure as the least sure of them."""
    found = list(parts)
    return Rows(sum(rows.number for rows in found), max(rows.basis for rows in found))


@cache
def counted(path: str | Path, mark: bytes, published: int) -> Rows:
    """Entries of a file by a mark that each has once; of one that is not here, so many as were published."""
    path = Path(path)
    number = 0
    if path.exists():
        with path.open("rb") as file:
            rest = b""
            while block := file.read(1 << 24):
                number += (rest + block).count(mark)
                rest = (rest + block)[1 - len(mark) :] if len(mark) > 1 else b""
    return Rows(number, Basis.COUNTED) if number else Rows(published, Basis.PUBLISHED)

"""Datasets, and what is made of them: analyses, exports and training files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bettersynth.configuration.recipes import recipe_trainset
from bettersynth.configuration.training import Trainset
from bettersynth.core import versions
from bettersynth.core.records import POOL
from bettersynth.workflow.expected import Rows
from bettersynth.workflow.jobs.specification import Ask, Files, Fingerprinted, ImagesOfDataset, Kind, Read, Rule
from bettersynth.workflow.roots import roots_of


class OfRows(Rule):
    """A rule that reads rows of a dataset, or the records that they name."""

    def records_of(self, dataset: str) -> list[Path]:
        """Cards of the records of every source that the dataset's rows may name."""
        return [card for source in self.plan.sources(dataset) for card in self.cards_of(source)]

    def cards_of(self, source: str) -> list[Path]:
        """Cards that say which records a source holds: one for each raw file of the pool, or each generated shard."""
        if source == POOL:
            return [self.layout.file_ledger(file.name) for file in self.configuration.pool.files]
        return [self.layout.records_card(source, shard) for shard in self.plan.shards(source)]

    @property
    def image_sizes(self) -> list[Path]:
        """Sizes of the pool's images."""
        return [self.layout.images(file.name) for file in self.configuration.pool.files]

    @property
    def own_questions(self) -> list[Path]:
        """Tables with the questions that records of the pool came with."""
        return [self.layout.order(file.name) for file in self.configuration.pool.files]

    @property
    def restored(self) -> list[Fingerprinted]:
        """Files that the questions are restored from."""
        return [Fingerprinted(path) for path in self.configuration.pool.restore]

    def paths_and_questions(self, dataset: str) -> dict[str, Any]:
        """What decides how records are written: where their images lie, and the contents of the restoring files.

        The pool's images are named relative to their folder: the same ones in another are no others. Drawn images are
        named relative to that folder, too.
        """
        pool = self.configuration.pool
        made = (self.plan.generators[source] for source in self.plan.sources(dataset) if source != POOL)
        has_new = any(generator.makes_images for generator in made)
        images = roots_of(pool).key if has_new else self.fingerprints.pictures(pool.files[0].name).root
        return {"images": images, "restore": self.fingerprints.contents(*pool.restore)}


class MakeDataset(OfRows):
    """Choose the rows of a dataset, by its verb, from its parents'."""

    name = "dataset"
    wildcards = ("dataset",)
    log_name = "dataset/{dataset}"
    says = "Choose the rows of {dataset}"
    title = "{dataset}"
    group = heading = "datasets"
    phase = "dataset"
    unit = "rows"

    def every(self) -> Iterator[tuple[str, ...]]:
        return ((dataset,) for dataset in self.configuration.datasets)

    def inputs(self, dataset: str) -> dict[str, Files]:
        node, rows = self.plan.dataset(dataset), self.layout.rows
        return {
            "parents": [rows(parent) for parent in node.parents],
            "asked": [rows(asked) for asked in self.plan.asked(dataset)] if node.verb.reads_asked else [],
            "scores": [self.layout.scores(*score) for score in self.plan.scores(dataset)],
            "records": [card for source in self.plan.reads_records(dataset) for card in self.cards_of(source)],
            "index": self.layout.index,
        }

    def outputs(self, dataset: str) -> dict[str, Files]:
        layout = self.layout
        return {"rows": layout.rows(dataset), "dropped": layout.dropped(dataset), "card": layout.dataset_card(dataset)}

    def parameters(self, dataset: str) -> dict[str, Any]:
        """The dataset's definition."""
        node = self.plan.dataset(dataset)
        definition = node.model_dump_json(exclude={"note", "published_rows"}, exclude_none=True, by_alias=True)
        facts: dict[str, Any] = {"definition": definition, "version": versions.DATASET}
        return facts if node.verb.makes_records else facts | node.verb.also_decides()

    def amount(self, dataset: str) -> Rows:
        return self.expected.rows(self.plan.dataset(dataset).from_)

    def what(self, dataset: str) -> str:
        return f"dataset: {self.plan.dataset(dataset).verb.name}"

    def work_kind(self, dataset: str) -> str:
        return f"dataset {self.plan.dataset(dataset).verb.name}"


class Analysis(OfRows):
    """Take the quartiles of scores over a dataset."""

    name = "analysis"
    wildcards = ("analysis",)
    log_name = "analysis/{analysis}"
    says = "Take the quartiles of {analysis}"

    def every(self) -> Iterator[tuple[str, ...]]:
        return ((name,) for name in self.configuration.analyses)

    def inputs(self, analysis: str) -> dict[str, Files]:
        return {
            "rows": self.layout.rows(self.configuration.analyses[analysis].dataset),
            "scores": [self.layout.scores(*scores) for scores in self.plan.analysed(analysis)],
            "index": self.layout.index,
            "images": self.image_sizes,
        }

    def outputs(self, analysis: str) -> dict[str, Files]:
        return {"card": self.layout.analysis(analysis)}

    def parameters(self, analysis: str) -> dict[str, Any]:
        """The analysis's definition."""
        definition = self.configuration.analyses[analysis]
        return {"definition": definition.model_dump_json(include={"dataset", "operators"}), "version": versions.DATASET}


class Export(OfRows):
    """Write a dataset in a format that other programs read."""

    name = "export"
    wildcards = ("dataset", "form")
    kind = Kind.CPU
    log_name = "export/{dataset}.{form}"
    says = "Write {dataset} as {form}"
    phase = "dataset"
    heading = "exports"
    keeps_folder = True
    unit = "rows"

    def every(self) -> Iterator[tuple[str, ...]]:
        return ((dataset, form) for dataset, forms in self.configuration.exports.items() for form in forms)

    def inputs(self, dataset: str, form: str) -> dict[str, Files]:
        return {
            "rows": self.layout.rows(dataset),
            "index": self.layout.index,
            "records": self.records_of(dataset),
            "questions": self.own_questions,
            "restore": self.restored,
        }

    def outputs(self, dataset: str, form: str) -> dict[str, Files]:
        return {"card": self.layout.export(dataset, form) / "card.json"}

    def parameters(self, dataset: str, form: str) -> dict[str, Any]:
        """What decides an exported dataset, apart from its rows and records."""
        question = self.configuration.trainset.question
        return {"question": question, "version": versions.EXPORT, **self.paths_and_questions(dataset)}

    def also_reads(self, dataset: str, form: str) -> Iterator[Read]:
        yield ImagesOfDataset(dataset)

    def amount(self, dataset: str, form: str) -> Rows:
        return self.expected.rows(dataset)

    def what(self, dataset: str, form: str) -> str:
        return f"export: {form}"

    def work_kind(self, dataset: str, form: str) -> str:
        return f"export {form}"


class TrainingFile(OfRows):
    """A rule that writes records in the form of a training file."""

    kind = Kind.CPU
    phase = "dataset"
    heading = "training sets"
    unit = "rows"

    def inputs_of(self, dataset: str) -> dict[str, Files]:
        """Rows of the dataset, their records, the sizes of the images, and the files that restore the questions."""
        return {
            "rows": self.layout.rows(dataset),
            "index": self.layout.index,
            "images": self.image_sizes,
            "records": self.records_of(dataset),
            "questions": self.own_questions,
            "restore": self.restored,
        }

    def parameters_of(self, dataset: str, settings: Trainset) -> dict[str, Any]:
        """What decides a training file, apart from the dataset's rows and records."""
        return {
            "dataset": dataset,
            "settings": json.dumps(settings.deciding(), separators=(",", ":")),
            "version": versions.TRAINSET,
            **self.paths_and_questions(dataset),
        }

    def work_kind(self, **_: str) -> str:
        return "trainset"


class HeldOut(TrainingFile):
    """Write the pairs that no recipe trains on."""

    name = log_name = "held_out"
    says = "Write the held-out pairs and open each of their images"

    @property
    def dataset(self) -> str:
        """The dataset of these pairs."""
        return self.configuration.held_out or ""

    def every(self) -> Iterator[tuple[str, ...]]:
        if self.configuration.held_out:
            yield ()

    def inputs(self) -> dict[str, Files]:
        return self.inputs_of(self.dataset)

    def outputs(self) -> dict[str, Files]:
        return {"pairs": self.layout.held_out, "card": self.layout.held_out_card}

    def parameters(self) -> dict[str, Any]:
        return self.parameters_of(self.dataset, self.configuration.trainset)

    def also_reads(self) -> Iterator[Read]:
        yield ImagesOfDataset(self.dataset)

    def amount(self) -> Rows:
        return self.expected.rows(self.dataset)


class MakeTrainset(TrainingFile):
    """Write the training file of a recipe."""

    name = "trainset"
    asks = Ask(8, 8_000, 120)
    wildcards = ("recipe",)
    log_name = "trainset/{recipe}"
    says = "Write the training file of {recipe} and open each of its images"
    title = "{recipe}"
    group = "{recipe}: {rule}"

    def every(self) -> Iterator[tuple[str, ...]]:
        return ((recipe,) for recipe in self.configuration.recipes)

    def inputs(self, recipe: str) -> dict[str, Files]:
        held_out = self.configuration.held_out
        own = self.inputs_of(self.configuration.recipes[recipe].dataset)
        return own | {"held_out": [] if held_out is None else self.layout.rows(held_out)}

    def outputs(self, recipe: str) -> dict[str, Files]:
        return {"trainset": self.layout.trainset(recipe), "card": self.layout.trainset_card(recipe)}

    def parameters(self, recipe: str) -> dict[str, Any]:
        settings = recipe_trainset(self.configuration, recipe)
        return self.parameters_of(self.configuration.recipes[recipe].dataset, settings)

    def also_reads(self, recipe: str) -> Iterator[Read]:
        yield ImagesOfDataset(self.configuration.recipes[recipe].dataset)

    def amount(self, recipe: str) -> Rows:
        return self.expected.trainset(recipe)

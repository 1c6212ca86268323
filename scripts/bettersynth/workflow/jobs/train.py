"""Every recipe, every seed: probe, choice of seeds, stage 1, stage 2."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from bettersynth.configuration.instructions import instruction_set
from bettersynth.configuration.recipes import recipe_start, recipe_training
from bettersynth.configuration.training import KIT_PROGRAM
from bettersynth.core import versions
from bettersynth.workflow.expected import Basis, Rows, counted
from bettersynth.workflow.jobs.preflight import CONTEST_INSTRUCTIONS
from bettersynth.workflow.jobs.specification import Files, Fingerprinted, ImagesOfList, Kind, Read, Rule
from bettersynth.workflow.needs import Needs, training_needs


class OfSeed(Rule):
    """A rule that makes something of each seed of a recipe."""

    wildcards: ClassVar[tuple[str, ...]] = ("recipe", "seed")
    title = "{recipe}, seed {seed}"
    group = "{recipe}: {rule}"

    def every(self) -> Iterator[tuple[str, ...]]:
        return ((name, str(seed)) for name, recipe in self.configuration.recipes.items() for seed in recipe.seeds)


class Train(OfSeed):
    """A rule that trains."""

    kind = Kind.GPU
    phase = "train"
    heading = "{rule}"
    keeps_folder = True
    unit = "samples"

    def work_kind(self, recipe: str, seed: str) -> str:
        return self.name

    def share(self, recipe: str) -> float:
        """The share of a recipe's seeds that go on after the probe."""
        keep, seeds = recipe_training(self.configuration, recipe).probe.keep, self.configuration.recipes[recipe].seeds
        return min(1.0, keep / len(seeds)) if keep else 1.0

    def start(self, recipe: str, seed: str) -> list[Path]:
        """The finished run that a run goes on from, if it does."""
        run = recipe_start(self.configuration, recipe, int(seed))
        return [] if run is None else [self.layout.finetune(*run) / "card.json"]

    def instructions(self, recipe: str) -> str:
        """Name of the recipe's instruction set."""
        return instruction_set(recipe_training(self.configuration, recipe).finetune, self.configuration)

    def checked(self, recipe: str, seed: str) -> list[Fingerprinted]:
        """What says that stage 2 and the benchmarks can be read; nothing where a job was done before that was asked."""
        cards = [self.layout.preflight(self.instructions(recipe))]
        cards += [self.layout.questions_card(benchmark) for benchmark in self.configuration.benchmarks]
        done = self.result(recipe=recipe, seed=seed).exists()
        return [Fingerprinted(card) for card in cards if card.exists() or not done]

    def also_reads(self, recipe: str, seed: str) -> Iterator[Read]:
        """Images of the training file; stage 2 reads others."""
        yield ImagesOfList(self.layout.trainset(recipe), Path(self.configuration.pool.images))

    def parameters(self, recipe: str, seed: str) -> dict[str, Any]:
        """What decides a training task, apart from its training file."""
        training = recipe_training(self.configuration, recipe)
        architecture, contents = training.architecture, self.fingerprints.contents
        settings = training.finetune if self.name == "finetune" else training.pretrain
        parts = {"language_model", "vision_tower", "vision_tower_aux"}
        facts: dict[str, Any] = {
            "architecture": architecture.model_dump_json(exclude=parts),
            **{part: self.fingerprints.model(getattr(architecture, part)) for part in sorted(parts)},
            "stage": json.dumps(settings.deciding(), separators=(",", ":")),
            "version": versions.TRAIN,
            **self.fingerprints.reading,
        }
        if training.start_from:
            facts["start_from"] = training.start_from.model_dump_json()
        if training.kit:
            facts["kit"] = contents(*(str(Path(training.kit.path, name)) for name in KIT_PROGRAM))
        if self.name == "finetune":
            facts["instructions"] = contents(training.finetune.instructions)
        if self.name == "probe":
            facts["steps"] = training.probe.steps
        return facts

    def needs(self, recipe: str, seed: str) -> Needs:
        return training_needs(recipe, self.configuration)


class Probe(Train):
    """Train a few steps, to see whether the seed aligns."""

    name = "probe"
    log_name = "probe/{recipe}/{seed}"
    says = "Probe {recipe} with seed {seed}"

    def every(self) -> Iterator[tuple[str, ...]]:
        for recipe, seed in super().every():
            if recipe_training(self.configuration, recipe).probe.keep is not None:
                yield recipe, seed

    def inputs(self, recipe: str, seed: str) -> dict[str, Files]:
        return {
            "trainset": self.layout.trainset(recipe),
            "trainset_card": self.layout.trainset_card(recipe),
            "checked": self.checked(recipe, seed),
            "start": self.start(recipe, seed),
        }

    def outputs(self, recipe: str, seed: str) -> dict[str, Files]:
        return {"card": self.layout.probe(recipe, seed) / "card.json"}

    def amount(self, recipe: str, seed: str) -> Rows:
        training = recipe_training(self.configuration, recipe)
        return Rows(training.probe.steps * training.pretrain.global_batch, Basis.MADE)


class ChooseSeeds(Rule):
    """Choose the seeds that go on."""

    name = "choose_seeds"
    wildcards = ("recipe",)
    log_name = "choose_seeds/{recipe}"
    says = "Choose the seeds of {recipe}"

    def every(self) -> Iterator[tuple[str, ...]]:
        for recipe in self.configuration.recipes:
            if recipe_training(self.configuration, recipe).probe.keep is not None:
                yield (recipe,)

    def inputs(self, recipe: str) -> dict[str, Files]:
        seeds = self.configuration.recipes[recipe].seeds
        return {"probes": [self.layout.probe(recipe, seed) / "card.json" for seed in seeds]}

    def outputs(self, recipe: str) -> dict[str, Files]:
        return {"seeds": self.layout.seeds(recipe)}

    def parameters(self, recipe: str) -> dict[str, Any]:
        return {
            "seeds": self.configuration.recipes[recipe].seeds,
            "keep": recipe_training(self.configuration, recipe).probe.keep,
        }


class Pretrain(Train):
    """Stage 1."""

    name = "pretrain"
    log_name = "pretrain/{recipe}/{seed}"
    says = "Stage 1 of {recipe} with seed {seed}"

    def inputs(self, recipe: str, seed: str) -> dict[str, Files]:
        """The training file, and the choice of seeds for a recipe that keeps only some of them."""
        keep = recipe_training(self.configuration, recipe).probe.keep
        return {
            "trainset": self.layout.trainset(recipe),
            "trainset_card": self.layout.trainset_card(recipe),
            "checked": self.checked(recipe, seed),
            "seeds": [] if keep is None else self.layout.seeds(recipe),
            "start": self.start(recipe, seed),
        }

    def outputs(self, recipe: str, seed: str) -> dict[str, Files]:
        return {"card": self.layout.pretrain(recipe, seed) / "card.json"}

    def amount(self, recipe: str, seed: str) -> Rows:
        rows, basis = self.expected.trainset(recipe)
        epochs = recipe_training(self.configuration, recipe).pretrain.epochs
        return Rows(round(rows * epochs * self.share(recipe)), basis)


class Finetune(Train):
    """Stage 2."""

    name = "finetune"
    log_name = "finetune/{recipe}/{seed}"
    says = "Stage 2 of {recipe} with seed {seed}"

    def inputs(self, recipe: str, seed: str) -> dict[str, Files]:
        return {
            "pretrain": self.layout.pretrain(recipe, seed) / "card.json",
            "start": self.start(recipe, seed),
            "instructions": self.layout.used_instructions(self.instructions(recipe)),
        }

    def outputs(self, recipe: str, seed: str) -> dict[str, Files]:
        return {"card": self.layout.finetune(recipe, seed) / "card.json"}

    def also_reads(self, recipe: str, seed: str) -> Iterator[Read]:
        """Images of what is used of the instruction set."""
        images = recipe_training(self.configuration, recipe).finetune.images
        yield ImagesOfList(self.layout.instructions(self.instructions(recipe)), Path(images))

    def amount(self, recipe: str, seed: str) -> Rows:
        stage = recipe_training(self.configuration, recipe).finetune
        rows, basis = counted(stage.instructions, b'"conversations"', CONTEST_INSTRUCTIONS)
        return Rows(round(rows * stage.epochs * self.share(recipe)), basis)

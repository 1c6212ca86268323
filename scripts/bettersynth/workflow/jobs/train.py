"""Every recipe, every seed: probes, choices of seeds, stage 1, stage 2."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from bettersynth.configuration.instructions import instruction_set
from bettersynth.configuration.probe import Pick
from bettersynth.configuration.probe import Probe as ProbeSettings
from bettersynth.configuration.recipes import recipe_start, recipe_training
from bettersynth.configuration.training import KIT_PROGRAM
from bettersynth.core import versions
from bettersynth.core.digests import files_below
from bettersynth.workflow.expected import Basis, Rows, counted
from bettersynth.workflow.jobs.preflight import CONTEST_INSTRUCTIONS
from bettersynth.workflow.jobs.specification import Ask, Files, Fingerprinted, ImagesOfList, Kind, Read, Rule
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
    imports = ("bettersynth.training.mgm.training",)
    phase = "train"
    heading = "{rule}"
    keeps_folder = True
    unit = "samples"

    def work_kind(self, **wildcards: str) -> str:
        return self.name

    def share(self, recipe: str, picks: list[Pick]) -> float:
        """The share of a recipe's seeds that go on after all of these picks."""
        return min([1.0, *(pick.keep / len(self.configuration.recipes[recipe].seeds) for pick in picks)])

    def probe_of(self, recipe: str) -> ProbeSettings:
        """At which rungs a recipe's losses are looked at, and seeds picked."""
        return recipe_training(self.configuration, recipe).probe

    def chosen(self, recipe: str, picks: list[Pick]) -> list[Path]:
        """What says which seeds go on after the last of these picks, if there are any."""
        return [self.layout.seeds(recipe, pick.choice) for pick in picks[-1:]]

    def data(self, recipe: str) -> dict[str, Files]:
        """What stage 1 trains on, and what its losses are measured on."""
        held_out = [self.layout.held_out, self.layout.held_out_card] if self.configuration.held_out else []
        return {
            "trainset": self.layout.trainset(recipe),
            "trainset_card": self.layout.trainset_card(recipe),
            "held_out": held_out,
        }

    def start(self, recipe: str, seed: str) -> list[Path]:
        """The finished run that a run goes on from, if it does."""
        run = recipe_start(self.configuration, recipe, int(seed))
        return [] if run is None else [self.layout.finetune(*run) / "card.json"]

    def instructions(self, recipe: str) -> str:
        """Name of the recipe's instruction set."""
        return instruction_set(recipe_training(self.configuration, recipe).finetune, self.configuration)

    def checked(self, recipe: str, **wildcards: str) -> list[Fingerprinted]:
        """What says that stage 2 and the benchmarks can be read; nothing where a job was done before that was asked."""
        cards = [self.layout.preflight(self.instructions(recipe))]
        cards += [self.layout.questions_card(benchmark) for benchmark in self.configuration.benchmarks]
        done = self.result(recipe=recipe, **wildcards).exists()
        return [Fingerprinted(card) for card in cards if card.exists() or not done]

    def also_reads(self, recipe: str, *_: Any, **wildcards: Any) -> Iterator[Read]:
        """Images of the training file and of the held-out pairs; stage 2 reads others."""
        for file in (self.layout.trainset(recipe), *([self.layout.held_out] if self.configuration.held_out else [])):
            yield ImagesOfList(file)

    def parameters(self, recipe: str, *_: Any, **wildcards: Any) -> dict[str, Any]:
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
        return facts

    def needs(self, recipe: str, *_: Any, **wildcards: Any) -> Needs:
        return training_needs(recipe, self.configuration)


class Probe(Train):
    """Train stage 1 up to a rung, to see whether the seed aligns."""

    name = "probe"
    asks = Ask(8, 48_000, 120)
    wildcards = ("recipe", "seed", "rung")
    log_name = "{rung}/{recipe}/{seed}"
    says = "Probe {recipe} with seed {seed} ({rung})"

    def every(self) -> Iterator[tuple[str, ...]]:
        for recipe, seed in super().every():
            yield from ((recipe, seed, pick.folder) for pick in self.probe_of(recipe).probes)

    def makes(self, recipe: str, seed: str, rung: str) -> bool:
        return rung.startswith("probe")

    def inputs(self, recipe: str, seed: str, rung: str) -> dict[str, Files]:
        return {
            **self.data(recipe),
            "checked": self.checked(recipe, seed=seed, rung=rung),
            "seeds": self.chosen(recipe, self._earlier(recipe, rung)),
            "start": self.start(recipe, seed),
        }

    def outputs(self, recipe: str, seed: str, rung: str) -> dict[str, Files]:
        return {"card": self.layout.probe(recipe, seed, rung) / "card.json"}

    def companions(self, output: Path, *_: Any, **wildcards: str) -> Iterator[Read]:
        """All that lies beside the card: the state that training goes on from is its result."""
        yield from (path for path in files_below(output.parent).values() if path != output)

    def parameters(self, recipe: str, *_: Any, rung: str, **wildcards: Any) -> dict[str, Any]:
        return super().parameters(recipe) | {"steps": self._pick(recipe, rung).steps}

    def amount(self, recipe: str, seed: str, rung: str) -> Rows:
        training, earlier = recipe_training(self.configuration, recipe), self._earlier(recipe, rung)
        steps = (self._pick(recipe, rung).steps or 0) - max((pick.steps or 0 for pick in earlier), default=0)
        return Rows(round(steps * training.pretrain.global_batch * self.share(recipe, earlier)), Basis.MADE)

    def _pick(self, recipe: str, rung: str) -> Pick:
        """The rung's; of a rung that is not configured, of which the job itself tells, one that has nothing to do."""
        found = (pick for pick in self.probe_of(recipe).probes if pick.folder == rung)
        return next(found, Pick(1, 0, 1))

    def _earlier(self, recipe: str, rung: str) -> list[Pick]:
        return self.probe_of(recipe).probes[: self._pick(recipe, rung).number - 1]


class ChooseSeeds(Rule):
    """Choose the seeds that go on from a rung."""

    name = "choose_seeds"
    wildcards = ("recipe", "choice")
    log_name = "choose_{choice}/{recipe}"
    says = "Choose the seeds of {recipe} ({choice})"

    def every(self) -> Iterator[tuple[str, ...]]:
        for recipe in self.configuration.recipes:
            picks = recipe_training(self.configuration, recipe).probe.picks
            yield from ((recipe, pick.choice) for pick in picks)

    def makes(self, recipe: str, choice: str) -> bool:
        return choice.startswith("seeds")

    def inputs(self, recipe: str, choice: str) -> dict[str, Files]:
        seeds, folder = self.configuration.recipes[recipe].seeds, self._pick(recipe, choice).folder
        return {"probes": [self.layout.probe(recipe, seed, folder) / "card.json" for seed in seeds]}

    def outputs(self, recipe: str, choice: str) -> dict[str, Files]:
        return {"seeds": self.layout.seeds(recipe, choice)}

    def parameters(self, recipe: str, choice: str) -> dict[str, Any]:
        keep = self._pick(recipe, choice).keep
        return {"seeds": self.configuration.recipes[recipe].seeds, "keep": keep}

    def _pick(self, recipe: str, choice: str) -> Pick:
        picks = recipe_training(self.configuration, recipe).probe.picks
        return next((pick for pick in picks if pick.choice == choice), Pick(1, 0, 1))


class Pretrain(Train):
    """Stage 1."""

    name = "pretrain"
    asks = Ask(8, 48_000, 720)
    log_name = "pretrain/{recipe}/{seed}"
    says = "Stage 1 of {recipe} with seed {seed}"

    def inputs(self, recipe: str, seed: str) -> dict[str, Files]:
        """The training file and, for a recipe whose seeds are picked, the last choice before."""
        return {
            **self.data(recipe),
            "checked": self.checked(recipe, seed=seed),
            "seeds": self.chosen(recipe, self.probe_of(recipe).probes),
            "start": self.start(recipe, seed),
        }

    def outputs(self, recipe: str, seed: str) -> dict[str, Files]:
        return {"card": self.layout.pretrain(recipe, seed) / "card.json"}

    def amount(self, recipe: str, seed: str) -> Rows:
        """What is left of it after the probes."""
        rows, basis = self.expected.trainset(recipe)
        stage, probes = recipe_training(self.configuration, recipe).pretrain, self.probe_of(recipe).probes
        left = rows * stage.epochs - stage.global_batch * max((pick.steps or 0 for pick in probes), default=0)
        return Rows(max(0, round(left * self.share(recipe, probes))), basis)


class Finetune(Train):
    """Stage 2."""

    name = "finetune"
    asks = Ask(8, 48_000, 1_440)
    log_name = "finetune/{recipe}/{seed}"
    says = "Stage 2 of {recipe} with seed {seed}"

    def inputs(self, recipe: str, seed: str) -> dict[str, Files]:
        return {
            "pretrain": self.layout.pretrain(recipe, seed) / "card.json",
            "seeds": self.chosen(recipe, [pick for pick in self.probe_of(recipe).picks if pick.steps is None]),
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
        return Rows(round(rows * stage.epochs * self.share(recipe, self.probe_of(recipe).picks)), basis)

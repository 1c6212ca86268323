"""The training jobs of a run: probe, stage 1 (`pretrain`) and stage 2 (`finetune`).

Stage 1 trains the connector on captions, everything else frozen. The probe is stage 1's first steps, from which stage 1
goes on. Stage 2 trains connector and language model on the fixed instruction set, starting from the original
language model and stage 1's connector. A recipe with `start_from` has the model of a finished run in the place of the
original parts. With `training.kit` the contest's own program trains, by `bettersynth.training.mgm.kit`.

What was made before of the same inputs is not trained again: `bettersynth.training.mgm.made`.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bettersynth.configuration.recipes import recipe_start, recipe_training, recipe_trainset
from bettersynth.configuration.training import Finetune, Stage
from bettersynth.configuration.types import Configuration
from bettersynth.core import versions
from bettersynth.core.digests import check_by_card, sha256_folder
from bettersynth.core.layout import CARD, CHECKPOINT, Layout
from bettersynth.core.publish import Card, publish, publish_folder, read_json, sha256_file
from bettersynth.pool.images import ImageRoots, resolve
from bettersynth.runtime.patches.weights import open_model
from bettersynth.training.mgm import checkpoints
from bettersynth.training.mgm.data import ConversationDataset, Lost
from bettersynth.training.mgm.instructions import used_instructions
from bettersynth.training.mgm.kit import KitProgram, identity
from bettersynth.training.mgm.made import RESUME, finish, made_before, made_elsewhere
from bettersynth.training.mgm.model import MGMForConditionalGeneration
from bettersynth.training.mgm.processes import is_main_process
from bettersynth.training.mgm.processing import Processor
from bettersynth.training.mgm.trainer import train_stage
from bettersynth.training.model_card import write_model_card

CONNECTOR = "connector.safetensors"
logger = logging.getLogger(__name__)

LOST = "lost.jsonl"
"""Rows whose pictures were good at the preflight and could not be read in training."""

PARTS = ("language_model", "vision_tower", "vision_tower_aux")


def probe(recipe: str, seed: int, configuration: Configuration, layout: Layout) -> dict[str, Any]:
    """Train the first steps of stage 1, under its full schedule; write and return the card with their `loss`."""
    run = _Run(recipe, seed, configuration, layout)
    folder, inputs = layout.probe(recipe, seed), run.pretrain_inputs()
    steps = run.training.probe.steps
    if earlier := made_before(folder, inputs | {"probe_steps": steps}):
        return earlier
    card = run.card(inputs | {"probe_steps": steps})
    card.facts |= run.train_connector("probe", folder, inputs, stop_at=steps)[1]
    return finish(folder, card)


def pretrain(recipe: str, seed: int, configuration: Configuration, layout: Layout) -> dict[str, Any]:
    """Stage 1: train the connector on the training set; write `connector.safetensors`, write and return the card.

    A seed that was stopped after the probe gets a card of `status: stopped` and nothing else.
    """
    folder = layout.pretrain(recipe, seed)
    if earlier := _stopped(recipe, seed, configuration, layout, folder):
        return earlier
    run = _Run(recipe, seed, configuration, layout)
    inputs = run.pretrain_inputs()
    if earlier := made_before(folder, inputs, CONNECTOR) or made_elsewhere(recipe, folder, inputs, CONNECTOR):
        return earlier
    card = run.card(inputs)
    state, facts = run.train_connector("pretrain", folder, inputs, resume_from=_probe_checkpoint(run, inputs))
    if is_main_process():
        with publish(folder / CONNECTOR) as temporary:
            save_file(state, temporary)
        card.facts |= facts | {"sha256": sha256_file(folder / CONNECTOR)}
    return finish(folder, card, drop=(folder, layout.probe(recipe, seed)))


def finetune(recipe: str, seed: int, configuration: Configuration, layout: Layout) -> dict[str, Any]:
    """Stage 2: train connector and language model; write the folder `checkpoint`, write and return the card.

    A seed that was stopped after the probe gets a card of `status: stopped` and nothing else.
    """
    folder = layout.finetune(recipe, seed)
    if earlier := _stopped(recipe, seed, configuration, layout, folder):
        return earlier
    run = _Run(recipe, seed, configuration, layout)
    stage, connector = run.training.finetune, layout.pretrain(recipe, seed) / CONNECTOR
    check_by_card(connector, connector.with_name(CARD))
    data = used_instructions(stage, configuration, layout)
    inputs = run.inputs("finetune", stage, data.sha256) | {"connector_sha256": sha256_file(connector)}
    if earlier := made_before(folder, inputs, CHECKPOINT, sha256_folder):
        return earlier
    if earlier := made_elsewhere(recipe, folder, inputs, CHECKPOINT, sha256_folder):
        if is_main_process():
            write_model_card(layout.run(recipe, seed), folder / CHECKPOINT, earlier)
        return earlier
    card = run.card(inputs)
    if run.kit is None:
        facts = _finetune(run, stage, data.path, connector, folder, inputs)
    else:
        facts = run.kit.finetune(run.name("finetune"), stage, data.path, connector, folder)
    if is_main_process():
        card.facts |= facts | {"sha256": sha256_folder(folder / CHECKPOINT)}
        write_model_card(layout.run(recipe, seed), folder / CHECKPOINT, card.facts)
    return finish(folder, card, drop=(folder,))


def _finetune(
    run: _Run, stage: Finetune, data: Path, connector: Path, folder: Path, inputs: dict[str, Any]
) -> dict[str, Any]:
    model, processor = run.assemble(stage)
    model.load_connector(load_file(connector), connector)
    model.language_model.requires_grad_(True)
    find = functools.partial(resolve, stage.images)
    options: dict[str, Any] = {
        "as_published": stage.published_forms == "accept",
        "left_out": stage.unusable_share if stage.unusable == "drop" else None,
    }
    facts = run.train(model, processor, stage, data, find, name="finetune", folder=folder, inputs=inputs, **options)
    if is_main_process():
        with publish_folder(folder / CHECKPOINT) as temporary:
            dtype = torch.bfloat16 if stage.precision == "bf16" else torch.float32
            model.to(dtype).save_pretrained(temporary)  # type: ignore[arg-type]
            processor.save(temporary)
    return facts


class _Run:
    """One recipe with one seed: what its stages have in common."""

    def __init__(self, recipe: str, seed: int, configuration: Configuration, layout: Layout) -> None:
        self.recipe = recipe
        self.seed = seed
        self.layout = layout
        self.training = recipe_training(configuration, recipe)
        self._pool = configuration.pool
        architecture = self.training.architecture
        self._folders = {part: configuration.models[getattr(architecture, part)].path for part in PARTS}
        kit = self.training.kit
        self.kit = None if kit is None else KitProgram(kit, architecture, self._folders, seed)
        trainset = recipe_trainset(configuration, recipe)
        self._left_out = trainset.unusable_share if trainset.unusable == "drop" else None
        start = recipe_start(configuration, recipe, seed)
        self._start = None if start is None else _start_checkpoint(recipe, *start, layout)

    def name(self, stage: str) -> str:
        """What a stage of this run is called in messages."""
        return f"{stage} {self.recipe} seed {self.seed}"

    def card(self, inputs: dict[str, Any]) -> Card:
        """A card that says what is made from what."""
        return Card(recipe=self.recipe, seed=self.seed, status="done", inputs=inputs)

    def pretrain_inputs(self) -> dict[str, Any]:
        """What stage 1 is made from; the probe too."""
        check_by_card(self.layout.trainset(self.recipe), self.layout.trainset_card(self.recipe))
        return self.inputs("pretrain", self.training.pretrain, sha256_file(self.layout.trainset(self.recipe)))

    def inputs(self, name: str, stage: Stage, data_sha256: str) -> dict[str, Any]:
        """Everything that the result of a stage depends on."""
        return {
            "stage": name,
            "code_version": versions.TRAIN,
            "seed": self.seed,
            "data_sha256": data_sha256,
            **self._model_inputs(),
            "architecture": self.training.architecture.model_dump(exclude=set(PARTS)),
            "parameters": stage.deciding(),
            **({"kit": identity(self.kit.kit)} if self.kit else {}),
        }

    def _model_inputs(self) -> dict[str, Any]:
        if self._start is not None:
            return {"start_sha256": sha256_folder(self._start)}
        return {"models_sha256": {part: sha256_folder(folder) for part, folder in self._folders.items()}}

    def assemble(self, stage: Stage) -> tuple[MGMForConditionalGeneration, Processor]:
        """The model from its parts or from the run it starts from, all but the connector frozen, and its processor."""
        if self._start is not None:
            model = open_model(MGMForConditionalGeneration, self._start, dtype=torch.float32)
            model.config.image_aspect = stage.image_aspect
            folders = self._start, self._start
        else:
            architecture = self.training.architecture
            model = MGMForConditionalGeneration.from_parts(
                **self._folders,
                image_size_aux=architecture.image_size_aux,
                image_aspect=stage.image_aspect,
                drop_path=architecture.drop_path,
                seed=self.seed,
            )
            folders = Path(self._folders["language_model"]), Path(self._folders["vision_tower"])
        model.requires_grad_(False)
        model.connector.requires_grad_(True)
        return model, Processor.load(*folders, model.config)

    def train_connector(
        self,
        name: str,
        folder: Path,
        inputs: dict[str, Any],
        resume_from: Path | None = None,
        stop_at: int | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Stage 1, or its beginning: the connector's state, and facts for the card."""
        stage, data = self.training.pretrain, self.layout.trainset(self.recipe)
        if self.kit is not None:
            return self.kit.train_connector(self.name(name), stage, data, self._pool.images, folder, stop_at)
        model, processor = self.assemble(stage)
        # Our own training file, whose preflight opened every image: a redrawn one lies outside the pool's folder.
        find = ImageRoots(self._pool, self.layout).load().found
        options: dict[str, Any] = {"resume_from": resume_from, "stop_at": stop_at, "left_out": self._left_out}
        facts = self.train(model, processor, stage, data, find, name=name, folder=folder, inputs=inputs, **options)
        return model.connector_state(), facts

    def train(
        self,
        model: MGMForConditionalGeneration,
        processor: Processor,
        stage: Stage,
        data: str | Path,
        find: Callable[[str], Path],
        *,
        name: str,
        folder: Path,
        inputs: dict[str, Any],
        as_published: bool = False,
        left_out: float | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Train what is not frozen; facts for the card."""
        dataset = ConversationDataset(
            data,
            find,
            processor,
            max_length=stage.max_length,
            reading=self._pool.reading,
            as_published=as_published,
            lost=None if left_out is None else Lost(folder / LOST, left_out),
        )
        summary = train_stage(
            model,
            dataset,
            stage,
            folder=folder,
            inputs=inputs,
            seed=self.seed,
            name=self.name(name),
            pad_token_id=processor.tokenizer.pad_token_id,
            **options,
        )
        return {
            "rows": len(dataset),
            "truncation": dataset.truncation(),
            **({} if dataset.lost is None else {"lost": dataset.lost.rows()}),
            "parameters": stage.model_dump(),
            "processes": int(os.environ.get("WORLD_SIZE", "1")),
            **summary.facts(stage.global_batch),
        }


def _start_checkpoint(recipe: str, start: str, seed: int, layout: Layout) -> Path:
    """The model of the run that `recipe` goes on from. Raises ValueError when that was stopped after its probe."""
    folder = layout.finetune(start, seed)
    if read_json(folder / CARD)["status"] == "stopped":
        raise ValueError(
            f"recipe `{recipe}` starts from `{start}`, seed {seed}, which was stopped after its probe; "
            f"name a seed that went on ({layout.seeds(start)}) in recipes.{recipe}.training.start_from.seed"
        )
    return folder / CHECKPOINT


def _probe_checkpoint(run: _Run, inputs: dict[str, Any]) -> Path | None:
    """The state in which the probe left stage 1, if it is of the same inputs."""
    try:
        return checkpoints.latest_checkpoint(run.layout.probe(run.recipe, run.seed) / RESUME, inputs)
    except checkpoints.ChangedInputsError:
        return None


def _stopped(
    recipe: str, seed: int, configuration: Configuration, layout: Layout, folder: Path
) -> dict[str, Any] | None:
    """The card of a seed that does not go on after the probe, written; None for one that does."""
    if recipe_training(configuration, recipe).probe.keep is None:
        return None
    verdict = next(entry for entry in read_json(layout.seeds(recipe))["seeds"] if entry["seed"] == seed)
    if verdict["verdict"] == "go":
        return None
    return Card(recipe=recipe, seed=seed, status="stopped", why=verdict["why"]).write(folder / CARD)

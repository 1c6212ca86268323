"""The training jobs of a run: probes, stage 1 (`pretrain`) and stage 2 (`finetune`).

Stage 1 trains the connector on captions, everything else frozen. A probe is stage 1 up to a rung, from which the next
probe, or stage 1, goes on. Stage 2 trains connector and language model on the fixed instruction set, starting from the
original language model and stage 1's connector. A recipe with `start_from` has the model of a finished run in the place
of the original parts. With `training.kit` the contest's own program trains, by `bettersynth.training.mgm.kit`.

A run whose loss is no number any more ends there, on record as stopped. What was made before of the same inputs is not
trained again: `bettersynth.training.mgm.made`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bettersynth.configuration.probe import Pick
from bettersynth.configuration.recipes import recipe_start, recipe_training, recipe_trainset
from bettersynth.configuration.training import Finetune, Stage
from bettersynth.configuration.types import Configuration
from bettersynth.core import versions
from bettersynth.core.digests import check_by_card, sha256_folder
from bettersynth.core.layout import CARD, CHECKPOINT, Layout
from bettersynth.core.publish import Card, json_lines, publish, publish_folder, read_json, sha256_file
from bettersynth.pool.images import ImageRoots, resolve
from bettersynth.runtime.patches.weights import open_model
from bettersynth.training.mgm import checkpoints
from bettersynth.training.mgm.data import ConversationDataset, Lost
from bettersynth.training.mgm.instructions import used_instructions
from bettersynth.training.mgm.kit import WORK, KitProgram, identity
from bettersynth.training.mgm.made import LOG, LOST, RESUME, finish, made_before, made_elsewhere
from bettersynth.training.mgm.model import MGMForConditionalGeneration
from bettersynth.training.mgm.processes import is_main_process, place_among_processes
from bettersynth.training.mgm.processing import Processor
from bettersynth.training.mgm.trainer import HELD_OUT, LossError, train_stage
from bettersynth.training.model_card import write_model_card

CONNECTOR = "connector.safetensors"
logger = logging.getLogger(__name__)

PARTS = ("language_model", "vision_tower", "vision_tower_aux")


def probe(recipe: str, seed: int, configuration: Configuration, layout: Layout, rung: str = "probe") -> dict[str, Any]:
    """Train stage 1 up to a rung, under its full schedule; write and return the card with the losses there.

    A seed that was stopped at an earlier rung, or whose loss is no number, gets a card of `status: stopped`.
    """
    folder = layout.probe(recipe, seed, rung)
    pick = next((pick for pick in recipe_training(configuration, recipe).probe.probes if pick.folder == rung), None)
    if pick is None:
        raise ValueError(f"recipe {recipe}: no seeds are picked at a rung `{rung}`; set training.probe.keep")
    if earlier := _stopped(recipe, seed, configuration, layout, folder, before=pick):
        return earlier
    run = _Run(recipe, seed, configuration, layout)
    inputs = run.pretrain_inputs()
    if earlier := made_before(folder, inputs | {"probe_steps": pick.steps}):
        return earlier
    card = run.card(inputs | {"probe_steps": pick.steps})
    try:
        card.facts |= run.train_connector(
            "probe", folder, inputs, resume_from=_probe_checkpoint(run, inputs, before=pick), stop_at=pick.steps
        )[1]
    except LossError as error:
        return _failed(folder, card, error)
    return finish(folder, card)


def pretrain(recipe: str, seed: int, configuration: Configuration, layout: Layout) -> dict[str, Any]:
    """Stage 1: train the connector on the training set; write `connector.safetensors`, write and return the card.

    A seed that was stopped at a rung, or whose loss is no number, gets a card of `status: stopped` and nothing else.
    """
    folder = layout.pretrain(recipe, seed)
    if earlier := _stopped(recipe, seed, configuration, layout, folder):
        return earlier
    run = _Run(recipe, seed, configuration, layout)
    inputs, spent = run.pretrain_inputs(), (folder, *run.probe_folders())
    earlier = made_before(folder, inputs, CONNECTOR, drop=spent) or made_elsewhere(recipe, folder, inputs, CONNECTOR)
    if earlier:
        return earlier
    card = run.card(inputs)
    try:
        state, facts = run.train_connector("pretrain", folder, inputs, resume_from=_probe_checkpoint(run, inputs))
    except LossError as error:
        return _failed(folder, card, error)
    if is_main_process():
        with publish(folder / CONNECTOR) as temporary:
            save_file(state, temporary)
        card.facts |= facts | {"sha256": sha256_file(folder / CONNECTOR)}
    return finish(folder, card, drop=spent)


def finetune(recipe: str, seed: int, configuration: Configuration, layout: Layout) -> dict[str, Any]:
    """Stage 2: train connector and language model; write the folder `checkpoint`, write and return the card.

    A seed that was stopped at a rung, or whose loss is no number, gets a card of `status: stopped` and nothing else.
    """
    folder = layout.finetune(recipe, seed)
    if earlier := _stopped(recipe, seed, configuration, layout, folder):
        return earlier
    run = _Run(recipe, seed, configuration, layout)
    stage, connector = run.training.finetune, layout.pretrain(recipe, seed) / CONNECTOR
    check_by_card(connector, connector.with_name(CARD))
    data = used_instructions(stage, configuration, layout)
    inputs = run.inputs("finetune", stage, data.sha256) | {"connector_sha256": sha256_file(connector)}
    if earlier := made_before(folder, inputs, CHECKPOINT, sha256_folder, drop=(folder,)):
        return earlier
    if earlier := made_elsewhere(recipe, folder, inputs, CHECKPOINT, sha256_folder):
        if is_main_process():
            write_model_card(layout.run(recipe, seed), folder / CHECKPOINT, earlier)
        return earlier
    card = run.card(inputs)
    try:
        if run.kit is None:
            facts = _finetune(run, stage, data.path, connector, folder, inputs)
        else:
            facts = run.kit.finetune(run.name("finetune"), stage, data.path, connector, folder)
    except LossError as error:
        return _failed(folder, card, error)
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
        self._held_out = None if configuration.held_out is None else layout.held_out
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

    def probe_folders(self, before: Pick | None = None) -> list[Path]:
        """Folders of the probes, or of those before a rung, the last first."""
        probes = self.training.probe.probes
        earlier = probes if before is None else probes[: before.number - 1]
        return [self.layout.probe(self.recipe, self.seed, pick.folder) for pick in reversed(earlier)]

    def card(self, inputs: dict[str, Any]) -> Card:
        """A card that says what is made from what."""
        return Card(recipe=self.recipe, seed=self.seed, status="done", inputs=inputs)

    def pretrain_inputs(self) -> dict[str, Any]:
        """What stage 1 is made from, and its probes, and what their losses are measured on."""
        check_by_card(self.layout.trainset(self.recipe), self.layout.trainset_card(self.recipe))
        inputs = self.inputs("pretrain", self.training.pretrain, sha256_file(self.layout.trainset(self.recipe)))
        if self._held_out is None:
            return inputs
        check_by_card(self._held_out, self.layout.held_out_card)
        return inputs | {"held_out_sha256": sha256_file(self._held_out)}

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
            return self.kit.train_connector(self.name(name), stage, data, str(self._pool.images), folder, stop_at)
        model, processor = self.assemble(stage)
        # Our own training file, whose preflight opened every image: a redrawn one lies outside the pool's folder.
        find = ImageRoots(self._pool, self.layout).load().found
        options: dict[str, Any] = {"resume_from": resume_from, "stop_at": stop_at, "left_out": self._left_out}
        if self._held_out is not None:
            options["held_out"] = self._conversations(self._held_out, find, processor, stage)
            options["measure_at"] = self.training.probe.measured
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
        lost = None if left_out is None else Lost(folder / LOST, left_out)
        dataset = self._conversations(data, find, processor, stage, as_published=as_published, lost=lost)
        dataset.check_answers()
        try:
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
        except LossError as error:
            error.remedy = "; or ".join(filter(None, [dataset.without_answers(), error.remedy]))
            raise
        return {
            "rows": len(dataset),
            "truncation": dataset.truncation(),
            **({} if dataset.lost is None else {"lost": dataset.lost.rows()}),
            "parameters": stage.model_dump(),
            "processes": place_among_processes()[1],
            **summary.facts(stage.global_batch),
        }

    def _conversations(
        self, data: str | Path, find: Callable[[str], Path], processor: Processor, stage: Stage, **options: Any
    ) -> ConversationDataset:
        reading = self._pool.reading
        return ConversationDataset(data, find, processor, max_length=stage.max_length, reading=reading, **options)


def _start_checkpoint(recipe: str, start: str, seed: int, layout: Layout) -> Path:
    """The model of the run that `recipe` goes on from. Raises ValueError when that was stopped after its probe."""
    folder = layout.finetune(start, seed)
    if read_json(folder / CARD)["status"] == "stopped":
        raise ValueError(
            f"recipe `{recipe}` starts from `{start}`, seed {seed}, which was stopped after its probe; "
            f"name a seed that went on ({layout.seeds(start)}) in recipes.{recipe}.training.start_from.seed"
        )
    return folder / CHECKPOINT


def _probe_checkpoint(run: _Run, inputs: dict[str, Any], before: Pick | None = None) -> Path | None:
    """The state in which the last probe, or the last before a rung, left stage 1, if it is of the same inputs."""
    for folder in run.probe_folders(before):
        with contextlib.suppress(checkpoints.ChangedInputsError):
            if found := checkpoints.latest_checkpoint(folder / RESUME, inputs):
                return found
    return None


def _stopped(
    recipe: str, seed: int, configuration: Configuration, layout: Layout, folder: Path, before: Pick | None = None
) -> dict[str, Any] | None:
    """The card of a seed that does not come this far, written; None for one that goes on.

    It has what is known of the run till it was stopped: `fate` (`stopped` for its rank, `failed` for its loss), why,
    steps and losses.
    """
    training = recipe_training(configuration, recipe)
    if (start := training.start_from) is not None and start.seed is None:  # one that is named has to be there
        known = read_json(layout.finetune(start.recipe, seed) / CARD)
        if known["status"] == "stopped":
            why = f"it starts from {start.recipe}, seed {seed}, which did not go on: {known.get('why', 'stopped')}"
            return _write_stopped(recipe, seed, folder, {"fate": known.get("fate", "stopped"), "why": why, "steps": 0})
    picks = training.probe.picks
    if before is not None:
        picks = picks[: before.number - 1]
    elif folder.name == "pretrain":
        picks = [pick for pick in picks if pick.steps is not None]
    earlier = layout.pretrain(recipe, seed) / CARD if folder.name == "finetune" else None
    if picks:
        choice = read_json(layout.seeds(recipe, picks[-1].choice))["seeds"]
        entry = next(entry for entry in choice if entry["seed"] == seed)
        if entry["verdict"] != "go":
            known = read_json(layout.probe(recipe, seed, picks[-1].folder) / CARD)
            return _write_stopped(
                recipe, seed, folder, known | {"fate": entry.get("fate", "stopped"), "why": entry["why"]}
            )
    if earlier is not None and (known := read_json(earlier))["status"] == "stopped":
        return _write_stopped(recipe, seed, folder, known)
    return None


def _write_stopped(recipe: str, seed: int, folder: Path, known: dict[str, Any]) -> dict[str, Any]:
    told = {key: known[key] for key in ("fate", "why", "steps", "loss", "held_out") if key in known}
    return Card(recipe=recipe, seed=seed, status="stopped", **told).write(folder / CARD)


def _failed(folder: Path, card: Card, error: LossError) -> dict[str, Any]:
    """The card of a run whose loss is no number any more, written; its checkpoints go."""
    logger.warning("%s: it counts as stopped. %s", error, error.remedy)
    entries = json_lines(folder / LOG)
    held_out = [{"step": entry["step"], "loss": entry[HELD_OUT]} for entry in entries if HELD_OUT in entry]
    card.facts |= {"status": "stopped", "fate": "failed", "why": error.why, "steps": error.step, "loss": None}
    card.facts |= {"held_out": held_out} if held_out else {}
    if is_main_process():
        shutil.rmtree(folder / WORK, ignore_errors=True)
    return finish(folder, card, drop=(folder,))

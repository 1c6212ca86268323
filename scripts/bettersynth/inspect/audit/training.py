"""Training: files of the rows that are chosen, and stages made of the files that are there."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from bettersynth.configuration.instructions import instruction_set, instruction_sets
from bettersynth.configuration.probe import Pick
from bettersynth.configuration.recipes import recipe_start, recipe_training
from bettersynth.core.layout import CARD, CHECKPOINT
from bettersynth.core.publish import SEAL, json_lines
from bettersynth.inspect.audit.links import Audited, Link
from bettersynth.training.mgm.made import DONE, RESUME
from bettersynth.training.mgm.seeds import chosen_seeds
from bettersynth.training.trainset import chosen_rows
from bettersynth.workflow.manifest import Problem

RESULTS = {"pretrain": "connector.safetensors", "finetune": CHECKPOINT}
"""What a stage leaves; a probe leaves the state that training goes on from."""


def links(audited: Audited) -> Iterator[Link]:
    """Held-out pairs, training files and instruction sets, then every stage of every run."""
    layout, configuration = audited.layout, audited.configuration
    if configuration.held_out and layout.held_out_card.exists():
        yield Link(layout.held_out_card, partial(_held_out, audited))
    for recipe in configuration.recipes:
        if layout.trainset_card(recipe).exists():
            yield Link(layout.trainset_card(recipe), partial(_trainset, audited, recipe))
    for name in instruction_sets(configuration):
        if layout.instructions_card(name).exists():
            yield Link(layout.instructions_card(name), partial(_instructions, audited, name))
    for recipe, settings in configuration.recipes.items():
        picks = recipe_training(configuration, recipe).probe.picks
        for pick in picks:
            if pick.steps is not None:
                for seed in settings.seeds:
                    yield from _stage(audited, recipe, seed, layout.probe(recipe, seed, pick.folder))
            yield from _choice(audited, recipe, pick)
        for seed in settings.seeds:
            yield from _stage(audited, recipe, seed, layout.pretrain(recipe, seed))
            yield from _stage(audited, recipe, seed, layout.finetune(recipe, seed))


def _held_out(audited: Audited) -> Iterator[Problem]:
    layout, dataset = audited.layout, str(audited.configuration.held_out)
    path, card = layout.held_out_card, audited.card(layout.held_out_card)
    audited.check(layout.held_out, card["sha256"], path)
    audited.check_beside(path)
    yield from audited.made_of(path, card["inputs"], {dataset: layout.rows(dataset)})
    yield from _entries(audited, layout.held_out, path, audited.rows(dataset)["id"].to_pylist())


def _trainset(audited: Audited, recipe: str) -> Iterator[Problem]:
    """The file's entries are the rows that are chosen, in their order, but for those on record as unusable."""
    layout, configuration = audited.layout, audited.configuration
    path, card, file = layout.trainset_card(recipe), audited.card(layout.trainset_card(recipe)), layout.trainset(recipe)
    audited.check(file, card["sha256"], path)
    audited.check_beside(path)
    datasets = audited.plan.read_by(recipe)
    others = list(audited.made_of(path, card["inputs"], {name: layout.rows(name) for name in datasets}))
    yield from others
    if others:
        return
    rows, kept, _ = chosen_rows(recipe, configuration, layout, audited.plan)
    chosen = rows if kept is None else rows.take(pa.array(kept))
    yield from _entries(audited, file, path, chosen["id"].to_pylist())


def _entries(audited: Audited, file: Path, card: Path, ids: list[str]) -> Iterator[Problem]:
    unusable = {finding["id"] for finding in json_lines(audited.layout.findings(file))}
    expected = [name for name in ids if name not in unusable]
    found = [entry["id"] for entry in orjson.loads(file.read_bytes())]
    yield from audited.mismatch(card, "rows", audited.card(card)["rows"], len(expected))
    if found != expected:
        yield audited.problem(file, "its entries are not the rows of its dataset, in their order", card)


def _instructions(audited: Audited, name: str) -> Iterator[Problem]:
    layout = audited.layout
    path, card = layout.instructions_card(name), audited.card(layout.instructions_card(name))
    audited.check(layout.instructions(name), card["sha256"], path)
    audited.check_beside(path)
    yield from audited.made_of(path, card["inputs"], {})
    said = {
        layout.preflight(name): ("rows", card["rows"]),
        layout.used_instructions(name): ("sha256", card["data_sha256"]),
    }
    for file, (key, value) in said.items():
        if file.exists():
            yield from audited.mismatch(file, key, audited.card(file).get(key), value)


def _choice(audited: Audited, recipe: str, pick: Pick) -> Iterator[Link]:
    path = audited.layout.seeds(recipe, pick.choice)

    def problems() -> Iterator[Problem]:
        made = {key: value for key, value in audited.card(path).items() if key != SEAL}
        yield from audited.mismatch(
            path, "the choice", made, chosen_seeds(recipe, audited.configuration, audited.layout, pick.choice)
        )

    if path.exists():
        yield Link(path, problems)


def _stage(audited: Audited, recipe: str, seed: int, folder: Path) -> Iterator[Link]:
    if (folder / CARD).exists():
        yield Link(folder / CARD, partial(_trained, audited, recipe, seed, folder))


def _trained(audited: Audited, recipe: str, seed: int, folder: Path) -> Iterator[Problem]:
    path, card = folder / CARD, audited.card(folder / CARD)
    for name, sha256 in card.get("files", {}).items():
        file = folder / name
        if file.exists() or not name.startswith(f"{RESUME}/"):  # that goes once stage 1 is done
            audited.check(file, sha256, path)
    if (folder / DONE).exists():
        yield from audited.mismatch(folder / DONE, "its copy of the card", audited.card(folder / DONE), card)
    yield from audited.mismatch(path, "the run", [card["recipe"], card["seed"]], [recipe, seed])
    if card["status"] != "done":
        return
    if (result := RESULTS.get(folder.name)) is not None:
        audited.check(folder / result, card["sha256"], path)
    yield from audited.mismatch(path, "seed", card["inputs"]["seed"], seed)
    for what, said, file, is_now in _made_of(audited, recipe, seed, folder.name, card["inputs"]):
        if said != is_now:
            yield audited.outdated(path, f"{what} that it was made of is not {file}")


def _made_of(
    audited: Audited, recipe: str, seed: int, stage: str, inputs: dict[str, Any]
) -> Iterator[tuple[str, str, Path, str]]:
    """What a stage was made of: in words, the sha256 that its card says, the file, and the file's sha256 now."""
    layout, configuration = audited.layout, audited.configuration
    training = recipe_training(configuration, recipe)
    data = layout.trainset(recipe)
    if stage == "finetune":
        data = layout.instructions_card(instruction_set(training.finetune, configuration))
        connector = layout.pretrain(recipe, seed) / RESULTS["pretrain"]
        yield "the connector", inputs["connector_sha256"], connector, audited.sha256(connector)
        yield "the instruction set", inputs["data_sha256"], data, audited.card(data)["data_sha256"]
    else:
        yield "the training file", inputs["data_sha256"], data, audited.sha256(data)
    if "held_out_sha256" in inputs and configuration.held_out:
        yield "the held-out pairs", inputs["held_out_sha256"], layout.held_out, audited.sha256(layout.held_out)
    if (start := recipe_start(configuration, recipe, seed)) is not None:
        model = layout.finetune(*start) / CHECKPOINT
        yield "the model", inputs["start_sha256"], model, audited.sha256(model)
    for part, sha256 in inputs.get("models_sha256", {}).items():
        folder = Path(configuration.models[getattr(training.architecture, part)].path)
        if folder.exists():
            yield f"the {part}", sha256, folder, audited.sha256(folder)

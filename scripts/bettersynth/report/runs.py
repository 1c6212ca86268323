"""The runs of a board as they are on disk: what became of each, how its losses fell, and which can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bettersynth.configuration.probe import END
from bettersynth.configuration.recipes import recipe_training
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import CARD, Layout
from bettersynth.core.publish import json_lines, read_json
from bettersynth.report.board import Board, RunKey

LAST_PART = 5
"""A training loss is the mean over the last fifth of the logged steps, as in cards: one step alone is noise."""


class Stage1(NamedTuple):
    """Stage 1 of a run that got as far."""

    card: dict[str, Any]
    training: list[float]
    """Loss of each of its steps."""

    @classmethod
    def read(cls, folder: Path) -> Stage1 | None:
        """None where there is no card of a stage that trained."""
        card = read_json(folder / CARD) if (folder / CARD).exists() else {}
        return cls(card, [loss for _, loss in read_log(folder / "log.jsonl")]) if "steps" in card else None

    def loss(self, by: str, rung: str) -> float | None:
        """The loss at a rung, on the held-out pairs or in training; None where there is none, or no number."""
        total = self.card["steps"]
        if self.card["status"] == "stopped" and rung == END:
            return None
        step = total if rung == END else int(rung)
        if by == "held_out":
            found = (entry["loss"] for entry in self.card.get("held_out", []) if entry["step"] == step)
            return next(found, None)
        return final_loss(self.training[:step]) if len(self.training) >= step else None


class Choice(NamedTuple):
    """That a recipe's seeds were picked by an early loss."""

    kept: int
    of: int
    by: str
    rung: str
    losses: dict[int, float]
    """Of each seed that was looked at, where it was a number."""
    rungs: int
    """At how many rungs seeds were picked; the others are of the first."""


def read_log(path: Path) -> list[tuple[int, float]]:
    """`(step, loss)` of a training log; empty when there is none."""
    return [(entry["step"], entry["loss"]) for entry in json_lines(path) if "loss" in entry]


def final_loss(losses: Sequence[float]) -> float | None:
    """The mean over the last part of a run's steps."""
    last = losses[-max(1, len(losses) // LAST_PART) :]
    return sum(last) / len(last) if last else None


def card_at(path: Path) -> dict[str, Any] | None:
    """A card, None where there is none yet."""
    return read_json(path) if path.exists() else None


def seed_entry(layout: Layout, recipe: str, seed: int, benchmarks: Sequence[str]) -> dict[str, Any]:
    """One run: status, accuracies, stage 1's final loss and steps, and what it took; None where there is none (yet).

    The fate of one that was stopped is `stopped`, by its rank, or `failed`, by a loss that is no number.
    """
    entry: dict[str, Any] = {"seed": seed, "status": "done", "fate": None, "why": None, **dict.fromkeys(benchmarks)}
    for benchmark in benchmarks:
        result = card_at(layout.result(recipe, seed, benchmark))
        if result is None:
            entry["status"] = "missing" if entry["status"] == "done" else entry["status"]
        elif result.get("status") == "stopped":
            entry["status"] = "stopped"
        else:
            entry[benchmark] = result["accuracy"]
    pretrain = card_at(layout.pretrain(recipe, seed) / CARD) or {}
    if pretrain.get("status") == "stopped":
        entry["status"] = "stopped"
    if entry["status"] == "stopped":
        entry |= {"fate": pretrain.get("fate", "stopped"), "why": pretrain.get("why")}
    done = entry["status"] != "stopped"
    log = read_log(layout.pretrain(recipe, seed) / "log.jsonl") if done else []
    finetune = card_at(layout.finetune(recipe, seed) / CARD) or {}
    return entry | {
        "pretrain_loss": final_loss([loss for _, loss in log]),
        "steps": pretrain.get("steps"),
        "checkpoint_sha256": finetune.get("sha256"),
        "gpu_hours": round(sum(map(_gpu_hours, _cards(layout, recipe, seed))), 4),
    }


def _cards(layout: Layout, recipe: str, seed: int) -> Iterator[dict[str, Any]]:
    """Of all jobs of a run that a GPU may do."""
    run = layout.run(recipe, seed)
    paths = [*run.glob(f"probe*/{CARD}"), layout.pretrain(recipe, seed) / CARD, layout.finetune(recipe, seed) / CARD]
    paths += run.glob("evaluation/*/card.json")
    return (card for path in sorted(paths) if (card := card_at(path)))


def _gpu_hours(card: dict[str, Any]) -> float:
    on_gpu = card.get("device", "cpu") not in ("cpu", "unknown")
    return float(card.get("seconds", 0) * card.get("processes", 1) / 3600) if on_gpu else 0.0


def seeds_on_disk(layout: Layout, recipe: str) -> list[int]:
    """Seeds of which there is a folder, whatever the configuration names."""
    found = layout.run(recipe, "*")
    numbers = (path.name.removeprefix(found.name[:-1]) for path in found.parent.glob(found.name))
    return sorted(int(number) for number in numbers if number.isdecimal())


def recipes_on_disk(layout: Layout) -> list[str]:
    """Recipes of which there is a run, whatever the configuration names."""
    folders = layout.run("*", "*").parent.parent.glob("*")
    return sorted(path.name for path in folders if path.is_dir() and seeds_on_disk(layout, path.name))


def is_of_other_pairs(layout: Layout, recipe: str, seed: int) -> bool:
    """Whether a run was trained on another training file than the recipe has now."""
    trained = (card_at(layout.pretrain(recipe, seed) / CARD) or {}).get("inputs", {}).get("data_sha256")
    now = (card_at(layout.trainset_card(recipe)) or {}).get("sha256")
    return bool(trained and now and trained != now)


def choice_of(configuration: Configuration, layout: Layout, recipe: str) -> Choice | None:
    """How its seeds were picked; None where none was stopped for its rank."""
    picks = recipe_training(configuration, recipe).probe.picks
    made = [(pick, read_json(path)) for pick in picks if (path := layout.seeds(recipe, pick.choice)).exists()]
    stopped = [seed for _, choice in made for seed in choice["seeds"] if seed["verdict"] == "stopped"]
    if all(seed.get("fate") == "failed" for seed in stopped):
        return None
    (first, choice), last = made[0], made[-1][1]
    losses = {seed["seed"]: seed["loss"] for seed in choice["seeds"] if seed["loss"] is not None}
    going = sum(seed["verdict"] == "go" for seed in last["seeds"])
    rung = END if first.steps is None else str(first.steps)
    return Choice(going, len(choice["seeds"]), choice.get("by", "training"), rung, losses, len(made))


class Compared(NamedTuple):
    """The board of what can be compared, and what was picked."""

    board: Board
    choices: dict[str, Choice]
    """Of recipes whose seeds were picked."""

    def is_policy(self, recipe: str) -> bool:
        """Whether a recipe's runs say what picking gives, and nothing corrects that."""
        return recipe in self.choices and recipe not in self.board.recipes


def compared_runs(
    configuration: Configuration, layout: Layout, finished: Sequence[RunKey], benchmarks: Sequence[str]
) -> Compared:
    """The board of finished runs: recipes whose seeds were picked stand on it where that can be corrected.

    It can where they were picked once, all at the same rung, and some recipe has several runs of known loss there.
    """
    picked = {
        recipe: choice_of(configuration, layout, recipe) for recipe in dict.fromkeys(name for name, _ in finished)
    }
    choices = {recipe: choice for recipe, choice in picked.items() if choice}
    corrected = {recipe: choice for recipe, choice in choices.items() if choice.rungs == 1}
    measures = {(choice.by, choice.rung) for choice in corrected.values()}
    losses = {}
    if len(measures) == 1:
        whole = [run for run in finished if run[0] not in choices]
        losses = _losses(layout, whole, *measures.pop()) | {name: choice.losses for name, choice in corrected.items()}
    known = [(name, seed) for name, seed in finished if seed in losses.get(name, {})]
    if len(known) == len({name for name, _ in known}):
        corrected, losses = {}, {}
    runs = [run for run in finished if run[0] not in choices or run[0] in corrected]

    def read(run: RunKey, benchmark: str) -> dict[str, Any]:
        return read_json(layout.result(*run, benchmark))

    return Compared(Board.read(runs, benchmarks, read, losses), choices)


def _losses(layout: Layout, runs: Sequence[RunKey], by: str, rung: str) -> dict[str, dict[int, float]]:
    """Of recipes whose seeds all went on, where the loss of each of them is known."""
    found: dict[str, dict[int, float]] = {}
    unknown = set()
    for recipe, seed in runs:
        stage = Stage1.read(layout.pretrain(recipe, seed))
        loss = stage and stage.loss(by, rung)
        if loss is None:
            unknown.add(recipe)
        else:
            found.setdefault(recipe, {})[seed] = loss
    return {recipe: losses for recipe, losses in found.items() if recipe not in unknown}


def board_of(configuration: Configuration, layout: Layout) -> Compared:
    """The runs that can be compared, as they are on disk."""
    benchmarks = list(configuration.benchmarks)
    finished = [
        (name, seed)
        for name, recipe in configuration.recipes.items()
        for seed in recipe.seeds
        if seed_entry(layout, name, seed, benchmarks)["status"] == "done"
    ]
    return compared_runs(configuration, layout, finished, benchmarks)

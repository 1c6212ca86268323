"""The choice between a recipe's seeds after the probe; imports no torch."""

from __future__ import annotations

from typing import Any

from bettersynth.configuration.recipes import recipe_training
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, write_json


def choose_seeds(recipe: str, configuration: Configuration, layout: Layout) -> dict[str, Any]:
    """Say of each seed of a recipe with `probe.keep` whether it goes on, and why; write and return `seeds.json`."""
    keep = recipe_training(configuration, recipe).probe.keep
    if keep is None:
        raise ValueError(f"recipe {recipe}: `probe.keep` is not set, so every seed goes on and there is no choice")
    choice = {
        "recipe": recipe,
        "keep": keep,
        "seeds": _by_loss(recipe, configuration.recipes[recipe].seeds, keep, layout),
    }
    write_json(layout.seeds(recipe), choice)
    return choice


def _by_loss(recipe: str, seeds: list[int], keep: int, layout: Layout) -> list[dict[str, Any]]:
    losses = {seed: read_json(layout.probe(recipe, seed) / "card.json")["loss"] for seed in seeds}
    ranked = sorted(seeds, key=lambda seed: (losses[seed], seed))
    entries = []
    for seed in seeds:
        rank = ranked.index(seed) + 1
        why = f"probe loss number {rank} of {len(seeds)}, lowest first; {min(keep, len(seeds))} of {len(seeds)} go on"
        entries.append({"seed": seed, "loss": losses[seed], "verdict": "go" if rank <= keep else "stopped", "why": why})
    return entries

"""The choice between a recipe's seeds at a rung; imports no torch."""

from __future__ import annotations

from typing import Any

from bettersynth.configuration.recipes import recipe_training
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import CARD, Layout
from bettersynth.core.publish import read_json, write_sealed


def choose_seeds(recipe: str, configuration: Configuration, layout: Layout, choice: str = "seeds") -> dict[str, Any]:
    """Write and return `<choice>.json`: `chosen_seeds`."""
    return write_sealed(layout.seeds(recipe, choice), chosen_seeds(recipe, configuration, layout, choice))


def chosen_seeds(recipe: str, configuration: Configuration, layout: Layout, choice: str) -> dict[str, Any]:
    """Whether each seed of a recipe goes on from a rung, and why.

    Seeds are ranked by their loss on the held-out pairs at the rung or, where none was measured, by the training loss.
    A seed whose loss is no number ranks last and stops, whoever goes on; no other seed takes its place.
    """
    picks = recipe_training(configuration, recipe).probe.picks
    pick = next((pick for pick in picks if pick.choice == choice), None)
    if pick is None:
        raise ValueError(f"recipe {recipe}: `probe.keep` is not set, so every seed goes on and there is no choice")
    seeds = configuration.recipes[recipe].seeds
    cards = {seed: read_json(layout.probe(recipe, seed, pick.folder) / CARD) for seed in seeds}
    running = {seed: card for seed, card in cards.items() if card["status"] != "stopped"}
    by_held_out = bool(running) and all(card.get("held_out") for card in running.values())
    losses = {seed: card["held_out"][-1]["loss"] if by_held_out else card["loss"] for seed, card in running.items()}
    ranked = sorted(running, key=lambda seed: (losses[seed] is None, losses[seed] or 0, seed))
    going = {seed for seed in ranked[: pick.keep] if losses[seed] is not None}
    measured = "the loss on the held-out pairs" if by_held_out else "the training loss"
    entries = []
    for seed in seeds:
        entry = {"seed": seed, "loss": losses.get(seed), "training_loss": cards[seed].get("loss"), "verdict": "stopped"}
        if seed not in running:
            entry |= {"fate": cards[seed]["fate"], "why": cards[seed]["why"]}
        elif losses[seed] is None:
            entry |= {"fate": "failed", "why": f"{measured} was no number {pick.words}"}
        else:
            number = f"number {ranked.index(seed) + 1} of {len(seeds)}, lowest first"
            entry["why"] = f"{measured} {pick.words} is {number}; {len(going)} of {len(seeds)} go on"
            entry |= {"verdict": "go"} if seed in going else {"fate": "stopped"}
        entries.append(entry)
    return {
        "recipe": recipe,
        "keep": pick.keep,
        "steps": pick.steps,
        "by": "held_out" if by_held_out else "training",
        "seeds": entries,
    }

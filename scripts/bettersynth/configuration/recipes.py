"""What holds for one recipe: sections of the configuration with the recipe's own keys laid over them."""

from __future__ import annotations

from typing import Any

from bettersynth.configuration.training import Training, Trainset
from bettersynth.configuration.types import Configuration


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, nested mappings key by key."""
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if nested else value
    return merged


def recipe_trainset(configuration: Configuration, recipe: str) -> Trainset:
    """The `trainset` section with the recipe's own keys laid over it."""
    return Trainset.model_validate(merge(configuration.trainset.model_dump(), configuration.recipes[recipe].trainset))


def recipe_training(configuration: Configuration, recipe: str) -> Training:
    """The `training` section with the recipe's own keys laid over it."""
    if configuration.training is None:
        raise ValueError(f"recipe {recipe}: the configuration has no `training` section")
    return Training.model_validate(merge(configuration.training.model_dump(), configuration.recipes[recipe].training))


def recipe_start(configuration: Configuration, recipe: str, seed: int) -> tuple[str, int] | None:
    """Recipe and seed of the run that this one goes on from, if it does."""
    start = recipe_training(configuration, recipe).start_from
    return None if start is None else (start.recipe, seed if start.seed is None else start.seed)

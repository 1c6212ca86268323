"""Controls: beside a recipe a random part that is as large, so that its size alone explains nothing.

Which part that is stands in the configuration as if a person had written it: a dataset `sample: {like: …}` and a
recipe on it. So the graph is static, and the size is read when the dataset is made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from bettersynth.configuration.checks import unknown
from bettersynth.configuration.datasets import Dataset
from bettersynth.configuration.recipes import recipe_training
from bettersynth.configuration.types import Configuration, Control, Recipe
from bettersynth.core.records import POOL

PREFIX = "random_like_"


def with_controls(content: dict[str, Any], configuration: Configuration) -> dict[str, Any]:
    """The mapping that `configuration` was read from, with the datasets and recipes that its `control` keys add.

    Recipes share a control where their datasets must be equally large and they train alike; it has the seeds of all,
    unless seeds are picked: then these have to be the same.
    """
    datasets: dict[str, Any] = {}
    parts: dict[str, str] = {}
    recipes: dict[str, dict[str, Any]] = {}
    controlled = {other for recipe in configuration.recipes.values() for other in recipe.control_of}
    for name, recipe in configuration.recipes.items():
        control = control_of(configuration, recipe)
        if control is None or name in controlled or any(control_problems(configuration, name)):
            continue
        size = json.dumps([_size(configuration, recipe.dataset), control.model_dump()])
        if size not in parts:
            parts[size], definition = _part(configuration, recipe.dataset, control)
            if parts[size] not in configuration.datasets:
                datasets[parts[size]] = definition
        seeds = recipe.seeds if _picks(configuration, name) else None
        own = recipes.setdefault(json.dumps([size, recipe.trainset, recipe.training, seeds], default=str), {})
        if not own:
            own |= {"name": f"{PREFIX}{name}", "dataset": parts[size], "seeds": [], "control_of": []}
            own |= {key: value for key in ("trainset", "training") if (value := getattr(recipe, key))}
            own |= {"note": f"Control: as many pairs as {recipe.dataset} has, drawn at random.", "control": "none"}
        own["seeds"] += [seed for seed in recipe.seeds if seed not in own["seeds"]]
        own["control_of"].append(name)
    added = {own.pop("name"): own for own in recipes.values()}
    if not added:
        return content
    datasets = (content.get("datasets") or {}) | datasets
    return {**content, "datasets": datasets, "recipes": content["recipes"] | added}


def control_of(configuration: Configuration, recipe: Recipe) -> Control | None:
    """What is asked to be a recipe's control; None for one that has none, or is a random part itself."""
    control = recipe.control if recipe.control is not None else configuration.control
    if control is None or control == "none":
        return None
    control = Control() if control == "random" else control
    if recipe.control is None and (recipe.control_of or _is_random(configuration, recipe.dataset, control.from_)):
        return None
    return control


def control_problems(configuration: Configuration, name: str) -> Iterator[str]:
    """What cannot be meant by a recipe's `control` and `control_of`."""
    recipe, accepted = configuration.recipes[name], [POOL, *configuration.datasets]
    for other in recipe.control_of:
        if other not in configuration.recipes:
            yield unknown(f"recipes.{name}.control_of", "recipe", other, configuration.recipes)
        elif other == name:
            yield f"recipes.{name}.control_of: a recipe is no control of itself"
    control = control_of(configuration, recipe)
    if control is None or recipe.dataset not in accepted:
        return
    key = "control" if recipe.control is None else f"recipes.{name}.control"
    if control.from_ not in accepted:
        yield unknown(f"{key}.from", "dataset", control.from_, accepted)
    elif recipe.dataset == control.from_:
        yield f"{key}: {recipe.dataset} is trained on as it is, and a part as large is the same; leave it out"
    part, definition = _part(configuration, recipe.dataset, control)
    there = configuration.datasets.get(part)
    if there is not None and not _is_same(there, definition):
        yield f"datasets.{part}: the random part as large as {recipe.dataset} has this name; give yours another"
    taken = configuration.recipes.get(f"{PREFIX}{name}")
    if taken is not None and not taken.control_of:
        yield f"recipes.{PREFIX}{name}: the control of recipe {name} has this name; give yours another"


def _is_random(configuration: Configuration, dataset: str, source: str) -> bool:
    """Whether a dataset is that which controls are drawn of, or a random part of it."""
    node = configuration.datasets.get(dataset)
    return dataset == source or (node is not None and node.from_ == source and node.verb.is_random)


def _part(configuration: Configuration, dataset: str, control: Control) -> tuple[str, dict[str, Any]]:
    """The dataset that is a random part as large as another: its name, of one that is there or new, and definition."""
    definition = {"from": control.from_, "sample": {"like": dataset, "seed": control.seed}}
    same = (name for name, node in configuration.datasets.items() if _is_same(node, definition))
    source = "" if control.from_ == POOL else f"_of_{control.from_}"
    new = f"{PREFIX}{dataset}{source}" + (f"_{control.seed}" if control.seed else "")
    return next(same, new), definition


def _is_same(node: Dataset, definition: dict[str, Any]) -> bool:
    wanted = Dataset.model_validate(definition)
    return (node.from_, node.verb) == (wanted.from_, wanted.verb)


def _picks(configuration: Configuration, recipe: str) -> bool:
    """Whether some of a recipe's seeds are picked."""
    try:
        return configuration.training is not None and bool(recipe_training(configuration, recipe).probe.picks)
    except ValidationError:  # told with the recipe's other problems
        return False


def _size(configuration: Configuration, dataset: str) -> list[Any]:
    """What a dataset is as large as: another one so many times, each id as often as there."""
    times = 1
    while dataset in configuration.datasets and (factor := configuration.datasets[dataset].verb.times) is not None:
        times *= factor
        dataset = configuration.datasets[dataset].from_
    return [dataset, times]

"""What a configuration, or a job of it, reads that no rule makes: models, word lists and data files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from bettersynth.configuration.operators import operator_spec
from bettersynth.configuration.recipes import recipe_start, recipe_training
from bettersynth.configuration.storage import expand
from bettersynth.configuration.types import Configuration
from bettersynth.configuration.verb import Generator
from bettersynth.core.resources import RESOURCES
from bettersynth.workflow.plan import Plan


class Needs(NamedTuple):
    """Names of entries of `models`, and of the staged resources that lie at no model's path."""

    models: tuple[str, ...]
    resources: tuple[str, ...]


NOTHING = Needs((), ())


def configuration_needs(configuration: Configuration, recipe: str | None = None) -> Needs:
    """What the configuration's operators, generators and recipes load, or those of one recipe; nothing else."""
    plan = Plan(configuration)
    recipes: Iterable[str] = configuration.recipes
    datasets: Iterable[str] = configuration.datasets
    operators: Iterable[str] = configuration.operators
    if recipe is not None:
        recipes = _with_starts(recipe, configuration)
        datasets = {name for each in recipes for read in plan.read_by(each) for name in plan.lineage(read)}
        operators = {operator for dataset in datasets for operator in plan.operators(dataset)}
    training = [training_needs(name, configuration) for name in recipes]
    generators = [generator_needs(source, configuration) for source in datasets]
    return _union(operator_needs(operators, configuration), *generators, *training)


def _with_starts(recipe: str, configuration: Configuration) -> set[str]:
    """The recipe and those that its runs go on from."""
    found = {recipe}
    for seed in configuration.recipes[recipe].seeds:
        start = recipe_start(configuration, recipe, seed)
        while start is not None:
            found.add(start[0])
            start = recipe_start(configuration, *start)
    return found


def data_files(configuration: Configuration) -> list[str]:
    """Single files that a configuration names; folders of images are apart."""
    files = [*(path for file in configuration.pool.files for path in expand(file.path)), *configuration.pool.restore]
    files += [recipe_training(configuration, recipe).finetune.instructions for recipe in configuration.recipes]
    if configuration.recipes:
        files += [file for benchmark in configuration.benchmarks.values() for file in benchmark.files]
    if configuration.report.truth:
        files.append(configuration.report.truth)
    return list(dict.fromkeys(files))


def operator_needs(names: Iterable[str], configuration: Configuration) -> Needs:
    """What operators load."""
    operators = [configuration.operators[name] for name in names]
    resources = [resource for operator in operators for resource in operator_spec(operator.op).resources]
    return _needs([operator.model for operator in operators if operator.model], resources, configuration)


def tokenizers(configuration: Configuration) -> set[str]:
    """Models of which a tokenizer may be enough: those that only filters which stand in no catalogue name."""
    users: dict[str, set[bool]] = {}
    for operator in configuration.operators.values():
        if operator.model:
            users.setdefault(operator.model, set()).add(operator_spec(operator.op).described)
    others = [training_needs(recipe, configuration) for recipe in configuration.recipes]
    others += [generator_needs(source, configuration) for source in configuration.datasets]
    return {name for name, described in users.items() if described == {True}} - set(_union(*others).models)


def generator_needs(source: str, configuration: Configuration) -> Needs:
    """The generator's model, and that of the operator which judges what it makes; of other datasets, nothing."""
    verb = configuration.datasets[source].verb
    if not isinstance(verb, Generator):
        return NOTHING
    entry, judge = verb.entry(configuration), verb.judge(configuration)
    models, judges = [entry.model] if entry else [], [judge] if judge else []
    return _union(_needs(models, (), configuration), operator_needs(judges, configuration))


def training_needs(recipe: str, configuration: Configuration) -> Needs:
    """The parts of the model that a recipe trains."""
    architecture = recipe_training(configuration, recipe).architecture
    parts = [architecture.language_model, architecture.vision_tower, architecture.vision_tower_aux]
    return _needs(parts, (), configuration)


def _union(*needs: Needs) -> Needs:
    return Needs(
        tuple(sorted({name for need in needs for name in need.models})),
        tuple(sorted({name for need in needs for name in need.resources})),
    )


def _needs(models: Iterable[str], resources: Iterable[str], configuration: Configuration) -> Needs:
    """Sorted and without repetition; an entry of `models` that is a staged resource is one."""
    at_path = {resource.path: resource.name for resource in RESOURCES}
    wanted = sorted(set(models))
    staged = {name: at_path.get(Path(configuration.models[name].path)) for name in wanted}
    return Needs(
        tuple(name for name in wanted if staged[name] is None),
        tuple(sorted({*resources, *(name for name in staged.values() if name)})),
    )

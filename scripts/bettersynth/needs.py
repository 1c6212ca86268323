"""What a configuration, or a job of it, reads that no rule makes: models, word lists and data files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from bettersynth.configuration.load import recipe_training
from bettersynth.configuration.types import Architecture, Configuration
from bettersynth.layout import Layout
from bettersynth.operators.catalogue import CATALOGUE
from bettersynth.plan import Plan
from bettersynth.publish import read_json
from bettersynth.staging import RESOURCES

SCORING_RULES = ("score_neural", "score_plain")
GENERATING_RULES = ("recaption", "redraw")
TRAINING_RULES = ("probe", "pretrain", "finetune")


class Needs(NamedTuple):
    """Names of entries of `models`, and of the staged resources that lie at no model's path."""

    models: tuple[str, ...]
    resources: tuple[str, ...]


def configuration_needs(configuration: Configuration, recipe: str | None = None) -> Needs:
    """What the configuration's operators, generators and recipes load, or those of one recipe; nothing else."""
    plan = Plan(configuration)
    recipes = configuration.recipes if recipe is None else [recipe]
    datasets: Iterable[str] = configuration.datasets
    operators: Iterable[str] = configuration.operators
    if recipe is not None:
        datasets = plan.lineage(configuration.recipes[recipe].dataset)
        operators = {operator for dataset in datasets for operator in plan.operators(dataset)}
    models = [name for source in datasets for name in _generator_models(source, configuration)]
    for name in recipes:
        models += _parts(recipe_training(configuration, name).architecture)
    scoring = _operator_needs(operators, configuration)
    return _needs([*scoring.models, *models], scoring.resources, configuration)


def job_needs(rule: str, wildcards: Mapping[str, str], configuration: Configuration, layout: Layout) -> Needs:
    """What one job loads, from its rule and wildcards."""
    if rule in SCORING_RULES:
        return _operator_needs(read_json(layout.scoring_pass(wildcards["scoring"]))["operators"], configuration)
    models: Iterable[str] = ()
    if rule in GENERATING_RULES:
        models = _generator_models(wildcards["source"], configuration)
    elif rule in TRAINING_RULES:
        models = _parts(recipe_training(configuration, wildcards["recipe"]).architecture)
    return _needs(models, (), configuration)


def data_files(configuration: Configuration) -> list[str]:
    """Single files that a configuration names; folders of images are apart."""
    files = [*(file.path for file in configuration.pool.files), *configuration.pool.restore]
    files += [recipe_training(configuration, recipe).finetune.instructions for recipe in configuration.recipes]
    if configuration.recipes and (evaluation := configuration.evaluation):
        files += [evaluation.textvqa.questions, evaluation.textvqa.annotations, evaluation.mmbench.questions]
    if configuration.report.truth:
        files.append(configuration.report.truth)
    return list(dict.fromkeys(files))


def _operator_needs(names: Iterable[str], configuration: Configuration) -> Needs:
    operators = [configuration.operators[name] for name in names]
    resources = [resource for operator in operators for resource in CATALOGUE[operator.op].resources]
    return _needs([operator.model for operator in operators if operator.model], resources, configuration)


def _generator_models(source: str, configuration: Configuration) -> list[str]:
    node = configuration.datasets[source]
    if node.recaption:
        return [configuration.captioners[node.recaption.captioner].model]
    if node.redraw:
        return [configuration.redrawers[node.redraw.redrawer].model]
    return []


def _parts(architecture: Architecture) -> list[str]:
    return [architecture.language_model, architecture.vision_tower, architecture.vision_tower_aux]


def _needs(models: Iterable[str], resources: Iterable[str], configuration: Configuration) -> Needs:
    """Sorted and without repetition; an entry of `models` that is a staged resource is one."""
    at_path = {resource.path: resource.name for resource in RESOURCES}
    wanted = sorted(set(models))
    staged = {name: at_path.get(Path(configuration.models[name].path)) for name in wanted}
    return Needs(
        tuple(name for name in wanted if staged[name] is None),
        tuple(sorted({*resources, *(name for name in staged.values() if name)})),
    )

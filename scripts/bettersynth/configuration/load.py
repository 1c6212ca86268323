"""Read a configuration file and refuse what cannot be meant, before any graph is built."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, RootModel, ValidationError

from bettersynth.configuration.checks import did_you_mean, is_word, kinds, score_problems, unknown
from bettersynth.configuration.controls import control_problems, with_controls
from bettersynth.configuration.datasets import Dataset
from bettersynth.configuration.generators import BestBy
from bettersynth.configuration.operator import OperatorSpec
from bettersynth.configuration.operators import UnknownOperatorError, operator_spec
from bettersynth.configuration.pool import Operator, Pool
from bettersynth.configuration.reading import ConfigurationError, read_yaml
from bettersynth.configuration.recipes import recipe_training, recipe_trainset
from bettersynth.configuration.storage import is_archive, storage_of
from bettersynth.configuration.training import Training
from bettersynth.configuration.types import Configuration
from bettersynth.core.records import POOL

KIT_DROP_PATH = 0.1
"""Stochastic depth that OpenCLIP's configuration of the ConvNeXt names; the kit can only leave it out."""


def load(path: str | Path) -> Configuration:
    """The configuration in a YAML file, named for the file unless it names itself."""
    return configure(read_yaml(path), path)


def configure(content: dict[str, Any], path: str | Path) -> Configuration:
    """The configuration that a mapping describes; `path` is the file it came from.

    Raises ConfigurationError with every problem found: the key, what is accepted, and the nearest spelling.
    """
    content = {"name": Path(path).stem.replace("-", "_"), **content}
    try:
        configuration = Configuration.model_validate(content)
        if (whole := with_controls(content, configuration)) is not content:
            configuration = Configuration.model_validate(whole)
    except ValidationError as error:
        raise ConfigurationError(str(path), [_explain(detail) for detail in error.errors()]) from None
    problems = list(_problems(configuration))
    if problems:
        raise ConfigurationError(str(path), problems)
    return configuration


# --- pydantic's findings in our words ------------------------------------------------------------


def _explain(detail: Any) -> str:
    location = list(detail["loc"])
    if location[-1:] == ["[key]"]:
        location[-2:] = [detail["input"]]  # pydantic writes false as 0
    key = ".".join(str(part) for part in location)
    match detail["type"]:
        case "extra_forbidden":
            accepted = _accepted_keys(location[:-1])
            return f"{key}: unknown key; accepted: {', '.join(accepted)}{did_you_mean(str(location[-1]), accepted)}"
        case "missing":
            return f"{key}: missing"
        case "string_pattern_mismatch":
            return f"{key}: names are lower-case letters, digits and underscores, beginning with a letter or digit"
        case "value_error":
            return f"{key}: {detail['ctx']['error']}"
        case _:
            return f"{key}: {detail['msg']}; found {detail['input']!r}{_unquoted(detail)}"


def _unquoted(detail: Any) -> str:
    """What to do where YAML made something else of a word without quotes."""
    value = detail["input"]
    if not detail["type"].startswith(("string", "literal")) or isinstance(value, str | dict | list):
        return ""
    words = {True: "yes, on or true", False: "no, off or false", None: "null"}
    read = (
        f"YAML reads {words[value]} so" if value is None or isinstance(value, bool) else "YAML reads a number or a date"
    )
    return f"; {read}: if a word is meant, quote it"


def _accepted_keys(location: list[Any]) -> list[str]:
    """Keys that the section at `location` accepts."""
    annotation: Any = Configuration
    for part in location:
        annotation = _step(annotation, part)
    model = next((kind for kind in _flatten(annotation) if _is_model(kind)), None)
    return sorted(field.alias or name for name, field in model.model_fields.items()) if model else []


def _step(annotation: Any, part: Any) -> Any:
    for kind in _flatten(annotation):
        if _is_model(kind) and issubclass(kind, RootModel):
            return _step(kind.model_fields["root"].annotation, part)
        if _is_model(kind):
            for name, field in kind.model_fields.items():
                if part in (name, field.alias):
                    return field.annotation
        elif typing.get_origin(kind) in (dict, list):
            return typing.get_args(kind)[-1]
    return None


def _flatten(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [kind for option in typing.get_args(annotation) for kind in _flatten(option)]
    return [annotation]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


# --- checks across sections ----------------------------------------------------------------------


def _problems(configuration: Configuration) -> Iterator[str]:
    yield from _pool_problems(configuration)
    yield from _operator_problems(configuration)
    yield from _dataset_problems(configuration)
    yield from _analysis_problems(configuration)
    yield from _recipe_problems(configuration)


def _pool_problems(configuration: Configuration) -> Iterator[str]:
    names = [file.name for file in configuration.pool.files]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"pool.files: two files have the name `{name}`; their shards would collide"
    paths = [file.path for file in configuration.pool.files]
    for path in sorted({path for path in paths if paths.count(path) > 1}):
        yield f"pool.files: {path} is listed twice"


def _operator_problems(configuration: Configuration) -> Iterator[str]:
    models = configuration.models
    for name, operator in configuration.operators.items():
        key = f"operators.{name}"
        try:
            spec = operator_spec(operator.op)
        except UnknownOperatorError as error:
            yield f"{key}.op: {error}"
            continue
        if operator.model is not None and operator.model not in models:
            yield unknown(f"{key}.model", "model", operator.model, models)
        if spec.loads_model and not spec.model_optional and operator.model is None:
            yield f"{key}.model: {operator.op} loads a model; name one of `models`"
        if spec.model_parameter and bool(operator.parameters.get(spec.model_parameter)) != bool(operator.model):
            yield f"{key}.model: {operator.op} loads a model with `{spec.model_parameter}: true`, and only then"
        if not spec.loads_model and operator.model is not None:
            yield f"{key}.model: {operator.op} loads no model"
        yield from _parameter_problems(key, operator, spec)
    for kind, entries in (("captioners", configuration.captioners), ("redrawers", configuration.redrawers)):
        for name, entry in entries.items():
            if entry.model not in models:
                yield unknown(f"{kind}.{name}.model", "model", entry.model, models)
    for name, captioner in configuration.captioners.items():
        if isinstance(captioner.keep, BestBy):
            yield from _number_problems(configuration, f"captioners.{name}.keep.best_by", captioner.keep.best_by)
    definitions: dict[str, str] = {}
    for name, operator in configuration.operators.items():
        other = definitions.setdefault(operator.model_dump_json(), name)
        if other != name:
            yield f"operators.{name}: the same as operators.{other}; every record would be scored twice"


def _parameter_problems(key: str, operator: Operator, spec: OperatorSpec) -> Iterator[str]:
    for parameter, value in operator.parameters.items():
        if parameter in spec.thresholds:
            yield (
                f"{key}.parameters.{parameter}: a threshold is no part of a score; write it in a dataset:"
                f" `filter: {{{key.partition('.')[2]}: {{min: …, max: …}}}}`"
            )
        elif parameter not in spec.accepted:
            yield (
                f"{key}.parameters.{parameter}: unknown parameter;"
                f" accepted: {', '.join(sorted(spec.accepted)) or 'none'}{did_you_mean(parameter, spec.accepted)}"
            )
        elif problem := spec.accepted[parameter].problem(value):
            yield f"{key}.parameters.{parameter}: {problem}"


def _dataset_problems(configuration: Configuration) -> Iterator[str]:
    datasets = configuration.datasets
    if POOL in datasets:
        yield "datasets.pool: `pool` is the name of the raw pairs"
    broken = False
    for name, node in datasets.items():
        for problem in _node_problems(configuration, name, node):
            broken = True
            yield problem
    if broken:
        return
    cycle = _cycle(datasets)
    if cycle:
        yield f"datasets.{cycle[0]}: made from itself: {' -> '.join(cycle)}"
        return
    yield from _twin_problems(datasets)


def _node_problems(configuration: Configuration, name: str, node: Dataset) -> Iterator[str]:
    key = f"datasets.{name}"
    accepted = [POOL, *configuration.datasets]
    for parent in node.parents:
        if parent not in accepted:
            yield unknown(key, "dataset", parent, accepted)
    yield from node.verb.problems(f"{key}.{node.verb.name}", configuration)


def _number_problems(configuration: Configuration, key: str, score: str) -> Iterator[str]:
    """Problems of a score by which something is to be ordered."""
    yield from score_problems(configuration, key, score)
    if is_word(configuration, score):
        yield f"{key}: the score `{score}` is a word; choose one that is a number"


def _cycle(datasets: dict[str, Dataset]) -> list[str]:
    """A chain of datasets that ends where it began, or nothing."""
    done: set[str] = set()

    def visit(name: str, chain: list[str]) -> list[str]:
        if name in chain:
            return [*chain[chain.index(name) :], name]
        if name in done or name == POOL:
            return []
        for parent in datasets[name].parents:
            found = visit(parent, [*chain, name])
            if found:
                return found
        done.add(name)
        return []

    for name in datasets:
        found = visit(name, [])
        if found:
            return found
    return []


def _twin_problems(datasets: dict[str, Dataset]) -> Iterator[str]:
    """Datasets that are equal once equal parents are written as one."""
    canonical: dict[str, str] = {POOL: POOL}
    definitions: dict[str, str] = {}

    def name_of(name: str) -> str:
        if name not in canonical:
            node = datasets[name]
            parents = [name_of(parent) for parent in node.parents]
            definition = f"{parents} {node.verb.name} {json.dumps(node.verb.apart_from_parents(), sort_keys=True)}"
            canonical[name] = definitions.setdefault(definition, name)
        return canonical[name]

    for name in datasets:
        if name_of(name) != name:
            yield f"datasets.{name}: the same as datasets.{name_of(name)}; use one name"


def _analysis_problems(configuration: Configuration) -> Iterator[str]:
    accepted = [POOL, *configuration.datasets]
    for name, analysis in configuration.analyses.items():
        if analysis.dataset not in accepted:
            yield unknown(f"analyses.{name}.dataset", "dataset", analysis.dataset, accepted)
        for score in analysis.operators:
            key = f"analyses.{name}.operators.{score}"
            yield from score_problems(configuration, key, score)
            if is_word(configuration, score) or "vector" in kinds(configuration, score):
                yield f"{key}: this score is no number"


def _recipe_problems(configuration: Configuration) -> Iterator[str]:
    recipes = configuration.recipes
    accepted = [POOL, *configuration.datasets]
    if recipes and (configuration.training is None or configuration.evaluation is None):
        yield "recipes: a recipe is trained and evaluated; add the sections `training` and `evaluation`"
    definitions: dict[str, str] = {}
    for name, recipe in recipes.items():
        if recipe.dataset not in accepted:
            yield unknown(f"recipes.{name}.dataset", "dataset", recipe.dataset, accepted)
        yield from _override_problems(configuration, name)
        yield from control_problems(configuration, name)
        try:
            definition = f"{recipe.dataset} {recipe_trainset(configuration, name)}"
            if configuration.training:
                training = recipe_training(configuration, name)
                definition += f" {training}"
                if recipe.training:
                    yield from _architecture_problems(configuration, f"recipes.{name}.", training)
                yield from _start_problems(configuration, name, training)
                yield from _kit_problems(f"recipes.{name}.training", training, configuration.pool)
        except ValidationError:
            continue  # explained above
        other = definitions.setdefault(definition, name)
        if other != name:
            yield f"recipes.{name}: trains the same as recipes.{other}; add the seeds there instead"
    held_out = configuration.held_out
    if held_out is not None and held_out not in configuration.datasets:
        yield unknown("held_out", "dataset", held_out, configuration.datasets)
    for name, recipe in recipes.items():
        if recipe.dataset == held_out:
            yield f"recipes.{name}.dataset: no recipe trains on `{held_out}`, the held-out pairs"
    baseline = configuration.report.baseline
    if baseline is not None and baseline not in recipes:
        yield unknown("report.baseline", "recipe", baseline, recipes)
    if configuration.training:
        yield from _architecture_problems(configuration, "", configuration.training)
    for name in configuration.exports:
        if name not in accepted:
            yield unknown(f"exports.{name}", "dataset", name, accepted)


def _architecture_problems(configuration: Configuration, prefix: str, training: Training) -> Iterator[str]:
    for part in ("language_model", "vision_tower", "vision_tower_aux"):
        model = getattr(training.architecture, part)
        if model not in configuration.models:
            yield unknown(f"{prefix}training.architecture.{part}", "model", model, configuration.models)


def _start_problems(configuration: Configuration, recipe: str, training: Training) -> Iterator[str]:
    key, start = f"recipes.{recipe}.training.start_from", training.start_from
    if start is None:
        return
    if start.recipe not in configuration.recipes:
        yield unknown(f"{key}.recipe", "recipe", start.recipe, configuration.recipes)
        return
    chain = [recipe]
    while (last := recipe_training(configuration, chain[-1]).start_from) and last.recipe in configuration.recipes:
        chain.append(last.recipe)
        if last.recipe in chain[:-1]:
            yield f"{key}: starts from itself: {' -> '.join(chain)}"
            return
    there = configuration.recipes[start.recipe].seeds
    wanted = configuration.recipes[recipe].seeds if start.seed is None else [start.seed]
    missing = ", ".join(str(seed) for seed in wanted if seed not in there)
    if missing:
        yield f"{key}.seed: {start.recipe} has no run with seed {missing}; its seeds: {', '.join(map(str, there))}"
    if recipe_training(configuration, start.recipe).architecture != training.architecture:
        yield f"{key}: {start.recipe} has another architecture, and a model cannot change its own"


def _kit_problems(key: str, training: Training, pool: Pool) -> Iterator[str]:
    """What the kit's program cannot do."""
    if training.kit is None:
        return
    inside = any(storage_of(file.path).holds_pictures for file in pool.files)
    if inside or not isinstance(pool.images, str) or is_archive(pool.images):
        yield f"{key}.kit: the kit's program opens single files below one folder; `pool` has pictures elsewhere, too"
    if training.start_from:
        yield f"{key}.start_from: only our own training goes on from a run; give this recipe `training: {{kit: null}}`"
    if training.architecture.drop_path not in (0, KIT_DROP_PATH):
        yield f"{key}.architecture.drop_path: the kit's program knows 0 and {KIT_DROP_PATH} alone"
    for stage in ("pretrain", "finetune"):
        if getattr(training, stage).precision != "bf16":
            yield f"{key}.{stage}.precision: the kit's program trains in bf16"


def check_recipe(configuration: Configuration, name: str | None) -> str | None:
    """The name that a person gave for a recipe, if any; ConfigurationError for one that is not configured."""
    if name is not None and name not in configuration.recipes:
        problem = unknown("RECIPE", "recipe", name, configuration.recipes)
        raise ConfigurationError(f"results/{configuration.name}", [problem])
    return name


def _override_problems(configuration: Configuration, name: str) -> Iterator[str]:
    sections = [("trainset", recipe_trainset)] + ([("training", recipe_training)] if configuration.training else [])
    for section, merged in sections:
        try:
            merged(configuration, name)
        except ValidationError as error:
            for detail in error.errors():
                explained = _explain({**detail, "loc": (section, *detail["loc"])})
                yield f"recipes.{name}.{explained}"

"""Whether the models of a configuration open: by their classes, with the names and shapes of their weights alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from bettersynth.configuration.operators import operator_spec
from bettersynth.configuration.recipes import recipe_training
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.workflow.manifest import Problem
from bettersynth.workflow.needs import configuration_needs, generator_needs, training_needs
from bettersynth.workflow.plan import Plan

Opener = Callable[[], Any]


def unopened(
    configuration: Configuration, layout: Layout, recipe: str | None, command: str, skip: Collection[Path]
) -> Iterator[Problem]:
    """Each model that a class does not open, of those that the configuration, or one recipe, loads, and why.

    They are opened as jobs open them, in this process, and no weight is read. Models below one of the paths `skip`, of
    which something is known to be wrong, are left out; `command` puts a model right.
    """
    openers = [
        (paths, opener)
        for paths, opener in _openers(configuration, layout, recipe)
        if not any(bad == path or path in bad.parents for path in paths for bad in skip)
    ]
    if not openers:
        return
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # read once; what matters is told here
    from bettersynth.runtime.patches.weights import headers_only
    from bettersynth.sources.base import prepare_offline

    prepare_offline()
    for paths, opener in openers:
        try:
            with headers_only():
                opener()
        except Exception as error:  # libraries refuse in many ways; all mean that no job could open it
            path = next((path for path in paths if str(error).startswith(f"{path}")), paths[0])
            yield Problem(path, f"cannot be opened: {str(error).removeprefix(f'{path}: ')}", command)


def _openers(configuration: Configuration, layout: Layout, recipe: str | None) -> Iterator[tuple[list[Path], Opener]]:
    """What opens each model of transformers or diffusers, once, and the folders that it opens."""
    needed = set(configuration_needs(configuration, recipe).models)
    for name, operator in configuration.operators.items():
        if operator.model in needed and _is_folder(_path(operator.model, configuration)):
            yield [_path(operator.model, configuration)], _operator(name, configuration)
    for source in Plan(configuration).generators:
        models = generator_needs(source, configuration).models
        if models and needed.issuperset(models):
            yield [_path(name, configuration) for name in models], _generator(source, configuration, layout)
    parts: dict[tuple[str, ...], Opener] = {}
    for name in configuration.recipes if recipe is None else [recipe]:
        if configuration.training and recipe_training(configuration, name).kit is None:
            parts.setdefault(training_needs(name, configuration).models, _parts(name, configuration))
    for models, opener in parts.items():
        yield [_path(name, configuration) for name in models], opener


def _path(model: str | None, configuration: Configuration) -> Path:
    return Path(configuration.models[str(model)].path)


def _is_folder(path: Path) -> bool:
    """Whether it is a model of transformers: SentencePiece and spaCy have no weights to compare."""
    return (path / "config.json").is_file()


def _operator(name: str, configuration: Configuration) -> Opener:
    operator = configuration.operators[name]
    spec, model = operator_spec(operator.op), configuration.models[str(operator.model)]

    def open_operator() -> None:
        from bettersynth.operators.base import load_own
        from bettersynth.operators.data_juicer import build

        load_own(operator, model) if spec.ours else build(operator, model, "cpu", spec.kind_class)

    return open_operator


def _generator(source: str, configuration: Configuration, layout: Layout) -> Opener:
    def open_generator() -> None:
        from bettersynth.pool.images import ImageRoots

        roots = ImageRoots(configuration.pool, layout)
        verb = Plan(configuration).generators[source]
        verb.generator(source, configuration, roots, layout.source_images(source)).open()

    return open_generator


def _parts(recipe: str, configuration: Configuration) -> Opener:
    architecture = recipe_training(configuration, recipe).architecture

    def open_parts() -> None:
        from bettersynth.training.mgm.model import MGMForConditionalGeneration

        MGMForConditionalGeneration.from_parts(
            _path(architecture.language_model, configuration),
            _path(architecture.vision_tower, configuration),
            _path(architecture.vision_tower_aux, configuration),
            image_size_aux=architecture.image_size_aux,
        )

    return open_parts

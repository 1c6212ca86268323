"""Registries: the things (verbs, operators, benchmarks, …) that the modules of a package define, and plugins.

A thing is one module. A plugin is a module on `sys.path` whose name begins with `bettersynth_plugin_`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Protocol, TypeVar

PLUGIN_PREFIX = "bettersynth_plugin_"

Thing = TypeVar("Thing")


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Named = TypeVar("Named", bound=_Named)


@cache
def modules(package: str) -> tuple[ModuleType, ...]:
    """The package's modules whose names begin without underscore, and all plugins, each by name."""
    inside = (f"{package}.{found.name}" for found in pkgutil.iter_modules(import_module(package).__path__))
    plugins = (found.name for found in pkgutil.iter_modules() if found.name.startswith(PLUGIN_PREFIX))
    names = sorted(name for name in inside if not name.rpartition(".")[2].startswith("_")) + sorted(plugins)
    imported = tuple(map(import_module, names))
    for module in imported:
        if getattr(module.__spec__, "_initializing", False):
            raise ImportError(f"import bettersynth.configuration before {module.__name__}: it collects what is there")
    return imported


def instances(package: str, kind: type[Thing]) -> list[Thing]:
    """What the modules define of this type, in the modules' order."""
    return [thing for module in modules(package) for thing in vars(module).values() if isinstance(thing, kind)]


def subclasses(package: str, base: type[Thing]) -> list[type[Thing]]:
    """Subclasses of `base` that the modules define, not those they import."""
    return [
        thing
        for module in modules(package)
        for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, base) and thing.__module__ == module.__name__
    ]


def by_name(things: Iterable[Named]) -> dict[str, Named]:
    """Things that have a `name` by it; ValueError for a name that two have."""
    found: dict[str, Named] = {}
    for thing in things:
        if found.setdefault(thing.name, thing) is not thing:
            raise ValueError(f"{thing.name} is defined twice: as {found[thing.name]!r} and as {thing!r}")
    return found

"""Filters of the installed Data-Juicer that no module describes, described from their source.

Nothing is imported of Data-Juicer, which takes seconds: its files are read and parsed, one for each filter that a
configuration names. Found are parameters and defaults, thresholds, stats keys, model and device.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import Kind, OperatorSpec, Parameter

KEPT_BACK = ("trust_remote_code", "model_params", "sampling_params")
"""Parameters that stay at their defaults: by them a model's folder could run code, or another one be loaded."""
LOOKED_UP = ("kenlm", "sentencepiece")
"""Kinds of model that are looked up by a name of their own, and the packages that open them."""
SCALARS = (ast.Constant, ast.Compare, ast.BinOp, ast.IfExp)


@cache
def _package() -> Path | None:
    found = find_spec("data_juicer")
    return Path(found.origin).parent if found and found.origin else None


@cache
def filters() -> frozenset[str]:
    """Names of the installed filters."""
    package = _package()
    return frozenset(path.stem for path in package.glob("ops/filter/*_filter.py")) if package else frozenset()


def kind_of(op: str) -> str | None:
    """Which kind of operator (`mapper`, `deduplicator` …) the installed Data-Juicer has under this name, if any."""
    package = _package()
    if package is None or not op.isidentifier():
        return None
    return next((path.parent.name for path in package.glob(f"ops/*/{op}.py")), None)


def default(op: str, argument: str) -> Any:
    """The default of a constructor's argument, of any operator of the installed Data-Juicer; None where it has none."""
    package = _package()
    kind = kind_of(op)
    if package is None or kind is None:
        return None
    tree = ast.parse((package / "ops" / kind / f"{op}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            names, defaults = [one.arg for one in node.args.args], node.args.defaults
            stated = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
            value = _literal(stated[argument]) if argument in stated else None
            return None if value is _NO_LITERAL else value
    return None


class _Source(NamedTuple):
    """A filter's class as written, with what it inherits from other filters."""

    text: str
    docstring: str
    methods: dict[str, ast.FunctionDef]
    """All but constructors."""
    constructors: list[ast.FunctionDef]
    """Its own, then inherited ones."""
    accelerator: str
    modules: dict[str, str]
    """Modules that it imports when they are used -> packages."""


def describe(op: str) -> OperatorSpec:
    """The specification of an installed filter; `refused` says why it cannot score pairs here."""
    source = _read(op)
    arguments = _arguments(source)
    optional, model_argument, model_lookup = _model(source, arguments)
    thresholds = {name: value for name, value in arguments.items() if _is_threshold(name, source)}
    stats = _stats(source, plural="any_or_all" in arguments)
    pictures = "image_key" in source.text
    on_gpu = source.accelerator == "cuda"
    return OperatorSpec(
        op,
        source.docstring,
        stats=stats,
        decodes=pictures,
        shares="LOADED_IMAGES" in source.text,
        model_argument=model_argument,
        model_lookup=model_lookup,
        model_optional=optional,
        device="gpu" if on_gpu else "cpu",
        parameters={
            name: Parameter(value)
            for name, value in arguments.items()
            if name not in (*thresholds, model_argument, *KEPT_BACK) and value is not _NO_LITERAL
        },
        thresholds={name: None if value is _NO_LITERAL else value for name, value in thresholds.items()},
        tagger="model" if model_lookup == SPACY else None,
        tolerance=1e-3 if on_gpu else 0.0,
        described=True,
        cost=Cost(20, 60) if on_gpu else Cost(50 if pictures else 2_000),
        refused=next(_refusals(source, arguments, stats), None),
    )


def _refusals(source: _Source, arguments: dict[str, Any], stats: dict[str, Kind]) -> Iterator[str]:
    if "video_key" in source.text or "LOADED_VIDEOS" in source.text:
        yield "it scores videos, and records here are of images and text"
    if "audio_key" in source.text:
        yield "it scores sounds, and records here are of images and text"
    if any(name.startswith("api_") for name in arguments):
        yield "it asks a language model by an API, and jobs have no network"
    if not stats:
        yield "it gives no score: it keeps or drops a record by a field of its own"
    packages = {} if "tokenization" in arguments else {kind: kind for kind in LOOKED_UP if kind in _model_kinds(source)}
    for module, package in {**source.modules, **packages}.items():
        if find_spec(module) is None:
            yield (
                f"it needs the package {package}, which is not installed: `.venv/bin/python -m pip install {package}`, "
                "and a line in envs/requirements.in"
            )


# --- reading the source --------------------------------------------------------------------------


def _read(op: str) -> _Source:
    package = _package()
    assert package is not None
    text = (package / "ops" / "filter" / f"{op}.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    node = next(node for node in tree.body if isinstance(node, ast.ClassDef) and any(_filters_of(node)))
    base = next(_filters_of(node))
    methods = {part.name: part for part in node.body if isinstance(part, ast.FunctionDef)}
    constructors = [methods.pop("__init__")] if "__init__" in methods else []
    accelerators = [part.value.value for part in node.body if _assigns(part, "_accelerator")]  # type: ignore[attr-defined]
    modules = dict(_lazy_modules(tree))
    if base != "Filter":
        inherited = _read(_defining(base))
        text += inherited.text
        methods = {**inherited.methods, **methods}
        constructors += inherited.constructors
        accelerators.append(inherited.accelerator)
        modules |= inherited.modules
    summary = re.split(r"(?<=\.)\s", " ".join((ast.get_docstring(node) or "").split()), maxsplit=1)[0]
    return _Source(text, summary, methods, constructors, accelerators[0] if accelerators else "cpu", modules)


def _filters_of(node: ast.ClassDef) -> Iterator[str]:
    return (base.id for base in node.bases if isinstance(base, ast.Name) and base.id.endswith("Filter"))


def _defining(name: str) -> str:
    """The filter whose module defines a class that others inherit from."""
    package = _package()
    assert package is not None
    modules = package.glob("ops/filter/*_filter.py")
    return next(path.stem for path in modules if f"class {name}(" in path.read_text(encoding="utf-8"))


def _assigns(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets)


def _lazy_modules(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for call in _calls(tree, "LazyLoader"):
        names = [part.value for part in call.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        if names:
            yield names[0].partition(".")[0], names[-1]


def _calls(node: ast.AST, name: str) -> Iterator[ast.Call]:
    return (
        part
        for part in ast.walk(node)
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == name
    )


# --- parameters, model, stats --------------------------------------------------------------------

_NO_LITERAL = object()
"""Stands for a default that is no literal, such as `sys.maxsize`."""


def _arguments(source: _Source) -> dict[str, Any]:
    """The constructors' arguments and their defaults."""
    found: dict[str, Any] = {}
    for function in reversed(source.constructors):
        names, defaults = [argument.arg for argument in function.args.args], function.args.defaults
        found |= {name: _literal(node) for name, node in zip(names[-len(defaults) :], defaults, strict=True)}
    return found


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return _NO_LITERAL


SPACY = "{model}.tar.gz"
"""What spaCy's look-up is answered: Data-Juicer opens the folder of that stem."""


def _model(source: _Source, arguments: dict[str, Any]) -> tuple[bool, str | None, str | None]:
    """Whether the model may be left out, the argument that takes its path, and how a look-up by name is answered."""
    for name in arguments:
        if name.startswith("hf_") or name.endswith("_dir"):
            return False, name, None
        if name == "cv_classifier":  # OpenCV brings one
            return True, name, None
    kinds = _model_kinds(source)
    if "spacy" in kinds:
        return False, None, SPACY
    if kinds & {*LOOKED_UP, "fasttext"}:
        return "tokenization" in arguments, None, "{model}"
    return False, None, None


def _model_kinds(source: _Source) -> set[str]:
    """The kinds of model, in Data-Juicer's words, that a constructor asks for."""
    return {
        str(option.value.value)
        for function in source.constructors
        for call in _calls(function, "prepare_model")
        for option in call.keywords
        if option.arg == "model_type" and isinstance(option.value, ast.Constant)
    }


def _is_threshold(name: str, source: _Source) -> bool:
    """Whether an argument is read where records are kept or dropped, and nowhere else."""
    made = [
        target.attr
        for function in source.constructors
        for part in ast.walk(function)
        if isinstance(part, ast.Assign) and name in _loaded(part.value)
        for target in part.targets
        if isinstance(target, ast.Attribute)
    ]
    keeping = {attribute for method in _methods(source, keeping=True) for attribute in _attributes(method)}
    scoring = {attribute for method in _methods(source, keeping=False) for attribute in _attributes(method)}
    return bool(keeping & set(made)) and not scoring & set(made)


def _methods(source: _Source, *, keeping: bool) -> Iterator[ast.FunctionDef]:
    """Methods that keep or drop records, or all others but the constructor."""
    return (method for name, method in source.methods.items() if name.startswith("process") == keeping)


def _loaded(node: ast.expr) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _attributes(node: ast.AST) -> Iterator[str]:
    return (
        part.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "self"
    )


def _stats(source: _Source, plural: bool) -> dict[str, Kind]:
    """Stats keys that the filter writes: numbers, for each image or chunk where it keeps by any or all of them."""
    values: dict[str, list[ast.expr]] = defaultdict(list)
    for method in _methods(source, keeping=False):
        for part in ast.walk(method):
            if isinstance(part, ast.Assign):
                for target in part.targets:
                    if isinstance(target, ast.Subscript) and (key := _stats_key(target.slice)):
                        values[key].append(part.value)
    return {key: "numbers" if _is_list(found, plural) else "number" for key, found in values.items()}


def _stats_key(node: ast.expr) -> str | None:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "StatsKeys":
        return _keys().get(node.attr, node.attr)
    return None


@cache
def _keys() -> dict[str, str]:
    """Data-Juicer's names of stats keys, and the keys."""
    package = _package()
    assert package is not None
    text = (package / "utils" / "constant.py").read_text(encoding="utf-8")
    return dict(re.findall(r'^    (\w+) = "(\w+)"', text, re.MULTILINE))


def _is_list(values: Iterable[ast.expr], plural: bool) -> bool:
    found = list(values)
    lists = any(isinstance(value, (ast.List, ast.ListComp)) or _makes_array(value) for value in found)
    return lists or (plural and not all(isinstance(value, SCALARS) for value in found))


def _makes_array(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "array"

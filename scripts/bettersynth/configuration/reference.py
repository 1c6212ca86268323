"""The schema and the reference page, generated from the types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, RootModel
from pydantic_core import PydanticUndefined

from bettersynth.configuration import types
from bettersynth.configuration.operators import catalogue
from bettersynth.configuration.section import Section, Written, named_types
from bettersynth.configuration.verb import Verb

INTRODUCTION = """\
# The configuration

One YAML file says everything: `make demo CONFIG=config/yours.yaml`, or `snakemake --configfile config/yours.yaml`.
It is checked before anything runs: unknown keys, unknown names, impossible ranges, cycles and twins are refused with
the key, what is accepted, and the nearest spelling. Editors complete and check it too when its first line is
`# yaml-language-server: $schema=schema.json`.

This page is generated from the types in `scripts/bettersynth/configuration` by `make reference`.

Names are lower-case letters, digits and underscores.
"""

OTHER_FILTERS = """\
Any other filter of the installed Data-Juicer can be named too, and runs as it is. What it takes is read in its source:
arguments that only decide what is kept are thresholds; a model (`hf_…`), a folder of word lists (`…_dir`) or what it
looks up by a name of its own is the entry's `model`; all others are parameters. Its stats are numbers, a truth 0 or 1.
Filters of videos and sounds, those that ask a model by an API, and those that give no score are refused with that
reason.
"""


def schema() -> str:
    """The JSON schema of a configuration file."""
    return json.dumps(types.Configuration.model_json_schema(by_alias=True), indent=2, ensure_ascii=False) + "\n"


def page() -> str:
    """The reference page, as Markdown."""
    return "\n".join([INTRODUCTION, *_sections(), *_operators()])


def _sections() -> Iterator[str]:
    for model in _models(types.Configuration):
        if issubclass(model, RootModel):
            continue  # told where it stands
        yield f"## {_title(model)}\n"
        yield f"{(model.__doc__ or '').strip()}\n"
        yield "| key | value | default | meaning |\n| --- | --- | --- | --- |"
        inherited = _inherited(model)
        for name, field in model.model_fields.items():
            if inherited is not Section and repr(inherited.model_fields.get(name)) == repr(field):
                continue
            meaning = field.description or _meaning(field.annotation)
            yield f"| `{field.alias or name}` | {_kind(model, name)} | {_default(field)} | {meaning} |"
        if inherited is not Section:
            yield f"\nand every key of [{_title(inherited)}](#{_title(inherited).lower()})."
        yield ""


def _models(model: type[BaseModel], found: dict[type[BaseModel], None] | None = None) -> dict[type[BaseModel], None]:
    """The section and all that it is made of, each before its parts."""
    found = {} if found is None else found
    if model not in found and model is not Section:
        found[model] = None
        types = [
            _inherited(model),
            *(kind for field in model.model_fields.values() for kind in named_types(field.annotation)),
        ]
        for kind in types:
            if isinstance(kind, type) and issubclass(kind, Written):
                _models(kind, found)
    return found


def _inherited(model: type[BaseModel]) -> type[BaseModel]:
    """The section whose keys are told in its own place, `Section` for none; those of a verb are all told with it."""
    if issubclass(model, Verb):
        return Section
    return next(base for base in model.__mro__[1:] if not base.__name__.startswith("_"))


def _meaning(annotation: Any) -> str:
    """The first sentence about the section that a field holds."""
    found = (kind.__doc__ for kind in named_types(annotation) if isinstance(kind, type) and issubclass(kind, Written))
    return next((text.partition("\n")[0] for text in found if text), "")


def _title(model: type[BaseModel]) -> str:
    return model.__name__


def _kind(model: type[BaseModel], name: str) -> str:
    """The type of a field in words, from its JSON schema."""
    schema = model.model_json_schema(by_alias=False)
    return _words(schema["properties"][name], schema.get("$defs", {})).replace("|", "\\|")


def _words(schema: dict[str, Any], named: dict[str, Any]) -> str:
    if "$ref" in schema:
        title = schema["$ref"].rpartition("/")[2]
        return f"[{title}](#{title.lower()})" if "properties" in named[title] else _words(named[title], named)
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_words(option, named) for option in schema["anyOf"] if option.get("type") != "null")
    match schema.get("type"):
        case "array":
            return f"list of {_words(schema.get('items', {}), named)}"
        case "object":
            values = schema.get("additionalProperties", schema.get("patternProperties"))
            if isinstance(values, dict) and values and "patternProperties" in schema:
                values = next(iter(values.values()))
            return f"mapping of names to {_words(values, named)}" if isinstance(values, dict) else "mapping"
        case "string":
            return "name" if "pattern" in schema else "text"
        case "boolean":
            return "`true`, `false`"
        case "integer" | "number" as kind:
            return f"{kind}{_range(schema)}"
        case _:
            return "any"


def _range(schema: dict[str, Any]) -> str:
    signs = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
    limits = [f"{sign} {schema[key]:g}" for key, sign in signs if key in schema]
    return f" {', '.join(limits)}" if limits else ""


def _default(field: Any) -> str:
    value = field.default_factory() if field.default_factory else field.default
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return "its defaults"
    return "–" if value is None or value in ({}, []) else f"`{json.dumps(value, ensure_ascii=False)}`"


def _operators() -> Iterator[str]:
    yield "## Operators\n"
    yield "Data-Juicer's names, stats and parameters; thresholds belong to datasets and are listed with its defaults.\n"
    yield OTHER_FILTERS
    yield "| `op` | what it says | stats | loads | parameters | Data-Juicer's thresholds |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, spec in catalogue().items():
        stats = ", ".join(f"`{stat}`" for stat in spec.stats)
        parameters = ", ".join(f"`{key}: {value.default}`" for key, value in spec.accepted.items()) or "–"
        thresholds = ", ".join(f"{key} {value}" for key, value in spec.thresholds.items() if value is not None) or "–"
        loads = (
            (f"a model, with `{spec.model_parameter}`" if spec.model_parameter else "a model")
            if spec.loads_model
            else "–"
        )
        yield f"| `{name}` | {spec.summary} | {stats} | {loads} | {parameters} | {thresholds} |"
    yield ""

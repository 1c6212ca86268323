"""Read a YAML file strictly: what cannot be read, or is read as something else than is written, is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from bettersynth.core.errors import PersonError


class ConfigurationError(PersonError, ValueError):
    """The configuration cannot be meant; the message lists every problem with its key."""

    def __init__(self, where: str, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(
            f"{where} is not a valid configuration:\n{lines}\nEvery key is explained in docs/configuration.md."
        )


class _StrictLoader(yaml.SafeLoader):
    """YAML without two surprises: the last of two equal keys wins, and `010` and `1:30` are the numbers 8 and 90."""


ODD_NUMBER = re.compile(r"[-+]?(0[0-7_]+|0[bx][0-9a-fA-F_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
"""What YAML 1.1 takes for a number of base 8, 2, 16 or 60."""


def _unique_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key_node, _ in node.value:
        if key_node.value in seen:
            line = f"line {key_node.start_mark.line + 1}: the key `{key_node.value}` appears twice"
            raise ConfigurationError(key_node.start_mark.name, [line])
        seen.add(key_node.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


def _plain_number(loader: _StrictLoader, node: yaml.ScalarNode) -> int | float:
    integer = node.tag.endswith(":int")
    value = loader.construct_yaml_int(node) if integer else loader.construct_yaml_float(node)
    if ODD_NUMBER.fullmatch(node.value):
        mark = node.start_mark
        problem = (
            f"line {mark.line + 1}: YAML reads {node.value} as {value}; quote it ('{node.value}'), or write {value}"
        )
        raise ConfigurationError(mark.name, [problem])
    return value


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
_StrictLoader.add_constructor("tag:yaml.org,2002:int", _plain_number)
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _plain_number)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    ConfigurationError names the line of a syntax error, of a key that appears twice, and of a number that YAML reads
    otherwise than people do.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as file:
            content = yaml.load(file, _StrictLoader)
    except OSError as error:
        shipped = ", ".join(sorted(str(file) for file in Path("config").glob("*.yaml")))
        what = "no such file" if isinstance(error, FileNotFoundError) else f"{error.strerror}"
        raise ConfigurationError(str(path), [f"{what}; there are {shipped}"]) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(path), [f"{_line(error)}not YAML: {error}"]) from None
    if not isinstance(content, dict):
        raise ConfigurationError(str(path), ["the file holds no mapping of keys"])
    return content


def _line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}: " if mark else ""

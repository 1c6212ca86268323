"""The operators there are: those that a module describes, and every other filter of the installed Data-Juicer.

An operator is one module of `bettersynth.operators.catalogue`, or a plug-in, which holds an `OperatorSpec`. A filter of
the installed Data-Juicer that none of them describes is described from its source (`configuration.stock`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from bettersynth.configuration import stock
from bettersynth.configuration.operator import OperatorSpec
from bettersynth.configuration.registry import instances

PACKAGE = "bettersynth.operators.catalogue"


class UnknownOperatorError(KeyError):
    """No operator of this name can be used; the message says why, and names the nearest."""

    def __str__(self) -> str:
        return str(self.args[0])


@cache
def catalogue() -> dict[str, OperatorSpec]:
    """The operators that a module describes, plug-ins among them, by name."""
    return {spec.name: spec for spec in instances(PACKAGE, OperatorSpec)}


@cache
def operator_spec(op: str) -> OperatorSpec:
    """The operator's specification; UnknownOperatorError says why there is none, and names the nearest spelling."""
    if op in catalogue():
        return catalogue()[op]
    if op in stock.filters():
        spec = stock.describe(op)
        if spec.refused:
            raise UnknownOperatorError(f"{op} is a filter of Data-Juicer's that cannot be used here: {spec.refused}")
        return spec
    if kind := stock.kind_of(op):
        raise UnknownOperatorError(f"{op} is a {kind} of Data-Juicer's; operators here are its filters, which score")
    names = {*catalogue(), *stock.filters()}
    near = difflib.get_close_matches(op, sorted(names), n=1)
    hint = f"; did you mean `{near[0]}`?" if near else ""
    raise UnknownOperatorError(
        f"there is no operator `{op}`; there are: {', '.join(sorted(catalogue()))}, and every filter of the installed "
        f"Data-Juicer{hint}"
    )


def find_spec(op: str) -> OperatorSpec | None:
    """The operator's specification, if it can be used."""
    try:
        return operator_spec(op)
    except UnknownOperatorError:
        return None


def giving(operators: Mapping[str, Any], stats: Iterable[str]) -> list[str]:
    """Names of a configuration's operators that give all of these stats."""
    wanted = set(stats)
    specs = {name: find_spec(operator.op) for name, operator in operators.items()}
    return [name for name, spec in specs.items() if spec and wanted <= spec.stats.keys()]

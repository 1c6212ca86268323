"""What a step of Data-Juicer's `process` list is here, and the other way round: bounds of filters, models, names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from bettersynth.configuration import stock
from bettersynth.configuration.operator import OperatorSpec
from bettersynth.core.resources import RESOURCES

LEAST, MOST = -(2**53), 2**53
"""Bounds that no score reaches, for a filter that has to be told one."""
HOW = frozenset(
    {"accelerator", "num_proc", "mem_required", "cpu_required", "gpu_required", "num_cpus", "num_gpus", "memory"}
    | {"batch_size", "batch_mode", "turbo", "skip_op_error", "work_dir", "gpu_batch_size", "auto_op_parallelism"}
    | {"text_key", "image_key", "image_bytes_key", "image_special_token", "trust_remote_code", "runtime_env"}
    | {"torch_dtype", "revision", "ray_execution_mode", "index_key", "save_stats_in_one_file", "save_dir"}
)
"""Arguments that say how a step runs, or where things lie, and not what it makes."""
RESOURCE_OF_LOOKUP = {"text_action_filter": "spacy_en", "language_id_score_filter": "lid_176"}
"""Filters whose model Data-Juicer looks up by a name of its own, and the staged resource that serves."""
_UNITS = "kmgtpezy"


@cache
def default_of(op: str, argument: str) -> Any:
    """Data-Juicer's default of an argument that a filter's specification leaves out, such as its model."""
    return stock.default(op, argument)


def number(value: Any) -> Any:
    """A bound as a number: `1TB`, as Data-Juicer reads sizes, in bytes."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+)\s*(?:([kmgtpezy])i?b)?", value.strip().lower())
    if found is None:
        return value
    return int(found[1]) << (10 * (_UNITS.index(found[2]) + 1) if found[2] else 0)


def is_open(value: Any) -> bool:
    """Whether a bound is none: not stated, or beyond every score."""
    return value is None or (isinstance(value, int | float) and abs(value) >= MOST)


def bounds(spec: OperatorSpec) -> dict[str, tuple[str, str]]:
    """Argument of a filter → its stat and the part of a threshold (`min`, `max`, `one_of`) that it is."""
    found = dict(spec.keeps)
    numbers = [stat for stat, kind in spec.stats.items() if kind not in ("word", "words", "vector")]
    for argument in spec.thresholds:
        side, _, of = argument.partition("_")
        if argument in found or side not in ("min", "max"):
            continue
        matching = numbers if len(numbers) == 1 else [stat for stat in numbers if stat.endswith(of)]
        if len(matching) == 1:
            found[argument] = (matching[0], side)
    return found


def unknown_arguments(spec: OperatorSpec, arguments: Mapping[str, Any]) -> list[str]:
    """Arguments of a step that decide something and have no counterpart."""
    known = {*spec.parameters, *spec.thresholds, spec.model_argument, *HOW}
    return sorted(argument for argument in arguments if argument not in known)


def short_name(op: str) -> str:
    """A filter's name without its kind."""
    return re.sub(r"[^a-z0-9_]", "_", op.lower()).removesuffix("_filter").removesuffix("_mapper") or "step"


def model_name(hub: str) -> str:
    """What a model is called: by the last part of its path or repository."""
    return re.sub(r"[^a-z0-9]+", "_", hub.rstrip("/").rpartition("/")[2].lower()).strip("_") or "model"


def resource_path(name: str) -> Path:
    """Where a staged resource lies."""
    return next(resource.path for resource in RESOURCES if resource.name == name)

"""Data-Juicer's own operators, their models loaded from local folders only.

What is changed of them stands in `runtime.patches.data_juicer`; an operator's own steps, in its module of `catalogue`.
"""

from __future__ import annotations

import importlib
from contextlib import nullcontext
from typing import Any

from bettersynth.configuration.operator import OperatorSpec
from bettersynth.configuration.operators import operator_spec
from bettersynth.configuration.pool import USUAL, Model, Operator
from bettersynth.core.resources import staged
from bettersynth.operators.model_folder import check_model_folder, existing
from bettersynth.pool.images import open_image
from bettersynth.runtime.patches.data_juicer import answer_lookup, import_data_juicer, read_members, same_threads
from bettersynth.runtime.patches.transformers import refuse_code
from bettersynth.runtime.patches.weights import refuse_made_up_weights
from bettersynth.workflow.archives import read_bytes


def build(operator: Operator, model: Model | None, device: str, kind: type | None = None) -> Any:
    """Data-Juicer's operator object, its model read from `model.path` only.

    `device` is `cpu` or `cuda`; `kind` is a subclass to build in place of Data-Juicer's own class. Raises
    FileNotFoundError or ValueError when the model folder cannot be used.
    """
    spec = operator_spec(operator.op)
    model_utils = import_data_juicer()
    read_members(lambda path: open_image(path, USUAL), read_bytes)
    for name in spec.resources:
        staged(name)
    arguments = {**spec.completed(operator.parameters), "accelerator": device, **_model_argument(spec, model)}
    if spec.model_lookup and model is not None:
        answer_lookup(spec.model_lookup.format(model=existing(model)))
    if spec.model_argument:
        refuse_made_up_weights()
        refuse_code()
    if spec.prepare is not None:
        spec.prepare(model_utils)
    with same_threads() if spec.loads_model else nullcontext():
        built = (kind or _operator_class(operator.op))(**arguments)
    for attribute, value in spec.attributes.items():
        setattr(built, attribute, value)
    if spec.loads_model and getattr(built, "model_key", None) is not None:
        model_utils.get_model(built.model_key, None, built.use_cuda())  # now, not with the first record
    return built


def _model_argument(spec: OperatorSpec, model: Model | None) -> dict[str, str]:
    if not spec.loads_model or (model is None and spec.model_optional):
        return {}
    path = existing(model)
    if spec.model_argument is None:
        return {}
    if spec.model_argument.startswith("hf_"):
        check_model_folder(path, may_lack_weights=not spec.kind)
    return {spec.model_argument: str(path)}


def score(built: Any, text: str, images: list[str]) -> dict[str, Any]:
    """The stats that the operator gives one record; `images` are absolute paths."""
    from data_juicer.utils.constant import Fields

    batch = {"text": [text], "images": [images], Fields.stats: [{}]}
    return built.compute_stats_batched(batch)[Fields.stats][0]


def _operator_class(name: str) -> type:
    importlib.import_module("data_juicer.ops")
    from data_juicer.ops.base_op import OPERATORS

    return OPERATORS.modules[name]

"""The operators that are none of Data-Juicer's."""

from __future__ import annotations

from pathlib import Path

from bettersynth.configuration.catalogue import operator_spec
from bettersynth.configuration.pool import Model, Operator
from bettersynth.operators.base import RecordOperator
from bettersynth.operators.own.image_hash import ImageHash
from bettersynth.operators.own.image_ssim import ImageSSIM
from bettersynth.operators.own.text_embedding import TextEmbedding


def load_own(operator: Operator, model: Model | None) -> RecordOperator:
    """One of our own operators. Raises FileNotFoundError or ValueError when its model folder cannot be used."""
    parameters = operator_spec(operator.op).completed(operator.parameters)
    match operator.op, model:
        case "image_hash", None:
            return ImageHash()
        case "image_ssim", None:
            return ImageSSIM(**parameters)
        case "text_embedding", Model(path=path):
            return TextEmbedding(Path(path))
    raise ValueError(f"{operator.op}: no operator of ours, or one that loads {'no model' if model else 'a model'}")

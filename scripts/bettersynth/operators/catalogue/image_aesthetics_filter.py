"""The aesthetic quality of an image.

The predictor's class is the one that its folder names; Data-Juicer guesses it from letters of the path, so that a
parent folder called `v1` gives another class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import ANY, OperatorSpec
from bettersynth.operators.model_folder import model_architecture


def load_predictor(pretrained_model_name_or_path: str, **parameters: Any) -> tuple[Any, Any]:
    """`(model, processor)` of the aesthetics class that the folder names; a loader for Data-Juicer's table."""
    import aesthetics_predictor
    from transformers import CLIPProcessor

    from bettersynth.runtime.patches.weights import open_model

    name = model_architecture(Path(pretrained_model_name_or_path))
    if not name.startswith("AestheticsPredictor") or not hasattr(aesthetics_predictor, name):
        raise ValueError(f"{pretrained_model_name_or_path}: {name} is no class of simple-aesthetics-predictor")
    device = parameters.pop("device", "cpu")
    processor = CLIPProcessor.from_pretrained(pretrained_model_name_or_path, **parameters)
    model = open_model(getattr(aesthetics_predictor, name), pretrained_model_name_or_path, **parameters)
    return model.to(device), processor


def prepare(model_utils: Any) -> None:
    """Let the folder name the predictor's class."""
    model_utils.MODEL_FUNCTION_MAPPING["simple_aesthetics"] = load_predictor


SPEC = OperatorSpec(
    "image_aesthetics_filter",
    "Aesthetic quality of the image, 0…1. The contest's default threshold was 0.3, the class's is 0.5.",
    stats={"image_aesthetics_scores": "numbers"},
    kind="bettersynth.operators.batched.filters:BatchedAesthetics",
    decodes=True,
    model_argument="hf_scorer_model",
    device="gpu",
    tolerance=1e-3,
    prepare=prepare,
    # Every class of the package scores 0…10; Data-Juicer asks the path's name
    attributes={"need_normalized_by_ten": True},
    thresholds={"min_score": 0.5, "max_score": 1.0, **ANY},
    cost=Cost(2_200, 30, measured=("scoring", "aesthetics_pairs_per_s")),
)

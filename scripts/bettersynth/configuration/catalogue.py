"""The supported operators: their stats, models and parameters.

Read when the graph is built, so nothing here imports torch or Data-Juicer. Names, stats keys, parameters and defaults
are those of Data-Juicer 1.6.1; a test compares them with the installed operators.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

Kind = Literal["integer", "number", "word", "integers", "numbers", "words", "vector"]
"""What a stat holds: one value per record, a list with one per image or image-text chunk, or a record's vector."""


@dataclass(frozen=True)
class Parameter:
    """A constructor argument that changes the score."""

    default: Any
    minimum: float | None = None
    maximum: float | None = None
    accepted: tuple[str, ...] = ()

    def problem(self, value: Any) -> str | None:
        """Why `value` cannot be meant, or nothing."""
        if self.accepted:
            return None if value in self.accepted else f"one of {', '.join(self.accepted)} expected, found {value!r}"
        kinds = (int, float) if isinstance(self.default, float) else (type(self.default),)
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(self.default, bool):
            return f"{type(self.default).__name__} expected, found {value!r}"
        if self.minimum is not None and value < self.minimum:
            return f"at least {self.minimum:g} expected, found {value!r}"
        if self.maximum is not None and value > self.maximum:
            return f"at most {self.maximum:g} expected, found {value!r}"
        return None


@dataclass(frozen=True)
class OperatorSpec:
    """What the graph, the configuration and the scorer need to know of an operator."""

    summary: str
    stats: Mapping[str, Kind]
    model_argument: str | None = None
    """Constructor argument that takes the model folder; `spacy` or `fasttext` where Data-Juicer looks it up by name."""
    device: Literal["cpu", "gpu"] = "cpu"
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    thresholds: Mapping[str, Any] = field(default_factory=dict)
    """Data-Juicer's keep arguments and defaults: part of a dataset's `filter`, never of a score."""
    resources: tuple[str, ...] = ()
    """Staged resources (`bettersynth.core.resources`) it reads beside its model."""
    tolerance: float = 0.0
    """How much its scores may differ between devices and precisions, fp16 or more; 0 where that cannot be told."""
    ours: bool = False
    """Whether it is none of Data-Juicer's."""
    version: int = 1
    """Raised when a change of ours changes its scores: they are then made again."""

    def completed(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter's value: the given ones over the defaults."""
        return {name: parameters.get(name, parameter.default) for name, parameter in self.parameters.items()}


_PAIR_PARAMETERS = {
    "horizontal_flip": Parameter(False),
    "vertical_flip": Parameter(False),
    "reduce_mode": Parameter("avg", accepted=("avg", "max", "min")),
}
_ANY = {"any_or_all": "any"}

CATALOGUE: dict[str, OperatorSpec] = {
    "image_text_similarity_filter": OperatorSpec(
        "CLIP's similarity of image and caption: logits / 100, a cosine for the published checkpoints.",
        stats={"image_text_similarity": "numbers"},
        model_argument="hf_clip",
        device="gpu",
        tolerance=1e-3,
        parameters=_PAIR_PARAMETERS,
        thresholds={"min_score": 0.1, "max_score": 1.0, **_ANY},
    ),
    "image_text_matching_filter": OperatorSpec(
        "BLIP's probability that image and caption belong together.",
        stats={"image_text_matching_score": "numbers"},
        model_argument="hf_blip",
        device="gpu",
        tolerance=1e-3,
        parameters=_PAIR_PARAMETERS,
        thresholds={"min_score": 0.003, "max_score": 1.0, **_ANY},
    ),
    "image_aesthetics_filter": OperatorSpec(
        "Aesthetic quality of the image, 0…1. The contest's default threshold was 0.3, the class's is 0.5.",
        stats={"image_aesthetics_scores": "numbers"},
        model_argument="hf_scorer_model",
        device="gpu",
        tolerance=1e-3,
        thresholds={"min_score": 0.5, "max_score": 1.0, **_ANY},
    ),
    "image_watermark_filter": OperatorSpec(
        "Probability of a watermark.",
        stats={"image_watermark_prob": "numbers"},
        model_argument="hf_watermark_model",
        device="gpu",
        tolerance=1e-3,
        thresholds={"prob_threshold": 0.8, **_ANY},
    ),
    "image_nsfw_filter": OperatorSpec(
        "Probability that the image is not safe for work.",
        stats={"image_nsfw_score": "numbers"},
        model_argument="hf_nsfw_model",
        device="gpu",
        tolerance=1e-3,
        thresholds={"min_score": 0.0, "max_score": 0.5, **_ANY},
    ),
    "phrase_grounding_recall_filter": OperatorSpec(
        "Share of the caption's noun phrases that OWL-ViT finds in the image; 1 for a caption without any.",
        stats={"phrase_grounding_recall": "numbers"},
        model_argument="hf_owlvit",
        device="gpu",
        parameters={
            **_PAIR_PARAMETERS,
            "iou_thr": Parameter(0.5, 0, 1),
            "large_area_ratio_thr": Parameter(0.95, 0, 1),
            "conf_thr": Parameter(0.0, 0, 1),
        },
        thresholds={"min_recall": 0.1, "max_recall": 1.0, **_ANY},
        resources=("spacy_en", "punkt_en"),
    ),
    "words_num_filter": OperatorSpec(
        "Words of the text; Data-Juicer counts the image and end tokens too, as one word each.",
        stats={"num_words": "integer"},
        thresholds={"min_num": 10, "max_num": None},
    ),
    "text_action_filter": OperatorSpec(
        "Verbs of the caption, as spaCy tags them.",
        stats={"num_action": "integer"},
        model_argument="spacy",
        thresholds={"min_action_num": 1},
    ),
    "language_id_score_filter": OperatorSpec(
        "fastText's language of the text and its confidence.",
        stats={"lang": "word", "lang_score": "number"},
        model_argument="fasttext",
        thresholds={"lang": "", "min_score": 0.8},
    ),
    "text_length_filter": OperatorSpec(
        "Characters of the text, special tokens included.",
        stats={"text_len": "integer"},
        thresholds={"min_len": 10, "max_len": None},
    ),
    "word_repetition_filter": OperatorSpec(
        "Share of word n-grams that occur more than once.",
        stats={"word_rep_ratio": "number"},
        parameters={"rep_len": Parameter(10, 1)},
        thresholds={"min_ratio": 0.0, "max_ratio": 0.5},
    ),
    "character_repetition_filter": OperatorSpec(
        "Share of the most repeated character n-grams.",
        stats={"char_rep_ratio": "number"},
        parameters={"rep_len": Parameter(10, 1)},
        thresholds={"min_ratio": 0.0, "max_ratio": 0.5},
    ),
    "image_shape_filter": OperatorSpec(
        "Width and height in pixels, EXIF rotation applied.",
        stats={"image_width": "integers", "image_height": "integers"},
        thresholds={"min_width": 1, "max_width": None, "min_height": 1, "max_height": None, **_ANY},
    ),
    "image_size_filter": OperatorSpec(
        "Size of the image file in bytes.",
        stats={"image_sizes": "integers"},
        thresholds={"min_size": "0", "max_size": "1TB", **_ANY},
    ),
    "image_aspect_ratio_filter": OperatorSpec(
        "Width divided by height.",
        stats={"aspect_ratios": "numbers"},
        thresholds={"min_ratio": 0.333, "max_ratio": 3.0, **_ANY},
    ),
    "image_hash": OperatorSpec(
        "sha256 of each image file and its 64-bit perceptual hash, in hex; ours, for `dedup`.",
        stats={"image_sha256": "words", "image_phash": "words"},
        ours=True,
    ),
    "image_ssim": OperatorSpec(
        "Structural similarity of the grey image with itself after a detour through a smaller size, which detail does "
        "not survive (SynthVLM, arXiv:2407.20756); ours.",
        stats={"image_ssim": "numbers"},
        parameters={"size": Parameter(768, 8), "reduced": Parameter(336, 1)},
        ours=True,
    ),
    "text_embedding": OperatorSpec(
        "The caption's place in the space of a sentence encoder (BGE and its like) or of a CLIP's text tower, as a "
        "vector of bytes; ours, for `cluster`.",
        stats={"text_embedding": "vector"},
        model_argument="folder",
        ours=True,
    ),
}


STOCK_KINDS = ("_filter", "_mapper", "_deduplicator", "_selector", "_grouper", "_aggregator")
"""How the names of Data-Juicer's operators end."""


class UnknownOperatorError(KeyError):
    """No operator of this name is supported."""

    def __str__(self) -> str:
        return str(self.args[0])


def operator_spec(op: str) -> OperatorSpec:
    """The operator's entry; UnknownOperatorError names all operators and the nearest spelling."""
    if op not in CATALOGUE:
        near = difflib.get_close_matches(op, CATALOGUE, n=1)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        raise UnknownOperatorError(f"there is no operator `{op}`; there are: {', '.join(sorted(CATALOGUE))}{hint}")
    return CATALOGUE[op]


def is_stock(op: str) -> bool:
    """Whether the installed Data-Juicer has an operator of this name; looks at its files and imports nothing of it."""
    package = find_spec("data_juicer")
    if package is None or package.origin is None or not op.endswith(STOCK_KINDS) or not op.isidentifier():
        return False
    return any(Path(package.origin).parent.glob(f"ops/*/{op}.py"))

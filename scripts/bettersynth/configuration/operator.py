"""What is known of an operator: its class, stats, model, parameters, device and cost.

Read when the graph is built, so nothing here imports torch or Data-Juicer. Names, stats keys, parameters and defaults
are Data-Juicer's; a test compares them with the installed operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from bettersynth.configuration.cost import Cost

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
        """Why `value` cannot be meant, or nothing. Where the default is None, any value can."""
        if self.accepted:
            return None if value in self.accepted else f"one of {', '.join(self.accepted)} expected, found {value!r}"
        if self.default is None:
            return None
        kinds = (int, float) if isinstance(self.default, float) else (type(self.default),)
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(self.default, bool):
            return f"{type(self.default).__name__} expected, found {value!r}"
        if self.minimum is not None and value < self.minimum:
            return f"at least {self.minimum:g} expected, found {value!r}"
        if self.maximum is not None and value > self.maximum:
            return f"at most {self.maximum:g} expected, found {value!r}"
        return None


TEXT = {"text": Parameter("whole", accepted=("whole", "caption"))}
"""What a filter of text reads: all, Data-Juicer's tokens of images and ends included, or the caption alone; ours."""
WORD_MODEL = {"lang": Parameter("en"), "tokenization": Parameter(False)}
"""Of filters that can cut words by a SentencePiece model of a language."""
PAIR_PARAMETERS = {
    "horizontal_flip": Parameter(False),
    "vertical_flip": Parameter(False),
    "reduce_mode": Parameter("avg", accepted=("avg", "max", "min")),
}
"""Of Data-Juicer's filters that compare images and text."""
ANY = {"any_or_all": "any"}
IMAGE_HASHES = ("image_sha256", "image_phash")
"""Stats by which images are compared."""
LANGUAGE = ("lang", "lang_score")
"""Stats that name a text's language."""
USUAL_COST = Cost(50)


@dataclass(frozen=True)
class OperatorSpec:
    """All that the graph, the configuration, the scorer and the estimates know of an operator."""

    name: str
    summary: str
    stats: Mapping[str, Kind]
    kind: str = ""
    """`module:Class` of what computes the stats: a batched subclass of Data-Juicer's filter or, for an operator of our
    own, a class with `stats` (`operators.base.RecordOperator`). Empty for Data-Juicer's filter as it is."""
    ours: bool = False
    """Whether it is none of Data-Juicer's."""
    decodes: bool = False
    """Whether it looks at pictures: they are decoded for it, and a record with a damaged one has no score."""
    shares: bool = True
    """Whether a filter of Data-Juicer that looks at pictures takes those that are decoded already."""
    model_argument: str | None = None
    """Constructor argument that takes the model's path; None for an operator without."""
    model_lookup: str | None = None
    """Where Data-Juicer looks the model up by a name of its own: the answer, in which `{model}` is the model's path."""
    model_optional: bool = False
    model_parameter: str | None = None
    """The parameter that, when it is true, asks for the model; without it there is none."""
    reads_text: bool = False
    """Whether it is told what to read of a text (`TEXT`)."""
    device: Literal["cpu", "gpu"] = "cpu"
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    thresholds: Mapping[str, Any] = field(default_factory=dict)
    """Data-Juicer's keep arguments and defaults: part of a dataset's `filter`, never of a score."""
    keeps: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Of keep arguments whose names do not tell: the stat, and which part of a threshold (`max`, `one_of`) each is."""
    resources: tuple[str, ...] = ()
    """Staged resources (`bettersynth.core.resources`) it reads beside its model."""
    tagger: Literal["model", "spacy_en"] | None = None
    """Which spaCy folder tags words, where words are tagged: the model, or a staged resource. Cards name it."""
    tolerance: float = 0.0
    """How much its scores may differ between devices and precisions, fp16 or more; 0 where that cannot be told."""
    cost: Cost = USUAL_COST
    prepare: Callable[[Any], None] | None = None
    """Called with Data-Juicer's `model_utils` before the operator is made."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What is set on the operator once it is made."""
    version: int = 1
    """Raised when a change of ours changes its scores: they are then made again."""
    described: bool = False
    """Whether it was described from its source: what it writes may then depend on its parameters."""
    refused: str | None = None
    """Why a filter of Data-Juicer cannot score pairs here."""

    @property
    def loads_model(self) -> bool:
        """Whether it takes a model."""
        return bool(self.model_argument or self.model_lookup)

    @property
    def kind_class(self) -> type | None:
        """The class that `kind` names, imported now."""
        if not self.kind:
            return None
        module, _, name = self.kind.partition(":")
        found: type = getattr(import_module(module), name)
        return found

    @property
    def accepted(self) -> dict[str, Parameter]:
        """Every parameter that changes the score: the constructor's, and ours."""
        return {**self.parameters, **(TEXT if self.reads_text else {})}

    def completed(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The value of each of the constructor's parameters: the given ones over the defaults."""
        return {name: parameters.get(name, parameter.default) for name, parameter in self.parameters.items()}

    def stated(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The value of every parameter, ours too."""
        return {name: parameters.get(name, parameter.default) for name, parameter in self.accepted.items()}

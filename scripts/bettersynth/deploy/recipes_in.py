"""A Data-Juicer recipe becomes operators, datasets and a recipe: of each step of `process` a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bettersynth.configuration import stock
from bettersynth.configuration.operator import OperatorSpec
from bettersynth.configuration.operators import UnknownOperatorError, operator_spec
from bettersynth.core.errors import PersonError
from bettersynth.deploy.data_juicer import (
    HOW,
    RESOURCE_OF_LOOKUP,
    bounds,
    default_of,
    is_open,
    model_name,
    number,
    resource_path,
    short_name,
    unknown_arguments,
)

Arguments = Mapping[str, Any]


class ProcessError(PersonError):
    """A file that holds no `process` list; the message says why."""


class Note(NamedTuple):
    """What of a step has no counterpart here, or is not quite the same."""

    step: int
    op: str
    what: str

    def __str__(self) -> str:
        return f"step {self.step}, {self.op}: {self.what}"


def read_process(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Names and arguments of the steps, in order. Raises ProcessError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ProcessError(f"{path}: cannot be read as YAML: {error}") from None
    steps = content.get("process") if isinstance(content, dict) else content
    if not isinstance(steps, list) or not steps:
        raise ProcessError(f"{path}: has no list `process` of steps, as Data-Juicer's recipes have it")
    found = []
    for number_, step in enumerate(steps, 1):
        entry = {step: None} if isinstance(step, str) else step
        if not isinstance(entry, dict) or len(entry) != 1:
            raise ProcessError(f"{path}: step {number_} of `process` is no operator with its arguments: {step!r}")
        ((op, arguments),) = entry.items()
        found.append((str(op), dict(arguments or {})))
    return found


class Imported:
    """Sections of a configuration, made of steps one after the other; `notes` says what could not be taken over."""

    def __init__(self, like: Mapping[str, Any]) -> None:
        """Models, operators and captioners of `like`, a configuration's contents, are used where they are the same."""
        self._like = like
        self.models: dict[str, Any] = {}
        self.operators: dict[str, Any] = {}
        self.captioners: dict[str, Any] = {}
        self.redrawers: dict[str, Any] = {}
        self.datasets: dict[str, Any] = {}
        self.notes: list[Note] = []
        self.last = "pool"

    def add(self, step: int, op: str, arguments: Arguments) -> None:
        """One step; of one without a counterpart, a note alone."""
        make: Callable[[int, str, Arguments], None] | None = STEPS.get(op)
        if make is not None:
            make(self, step, op, arguments)  # type: ignore[call-arg, arg-type]
        elif stock.kind_of(op) == "filter":
            self._filter(step, op, arguments)
        else:
            kind = stock.kind_of(op)
            what = f"a {kind} without a counterpart" if kind else "no operator of the installed Data-Juicer"
            self._note(step, op, f"{what}; left out")

    def _note(self, step: int, op: str, what: str) -> None:
        self.notes.append(Note(step, op, what))

    def _dataset(self, name: str, verb: str, parameters: Any) -> None:
        """A dataset of the last one, which becomes the last."""
        name = _free(name, {*self.datasets, "pool"})
        self.datasets[name] = {"from": self.last, verb: parameters}
        self.last = name

    # filters
    def _filter(self, step: int, op: str, arguments: Arguments) -> None:
        try:
            spec = operator_spec(op)
        except UnknownOperatorError as error:
            self._note(step, op, f"{error}; left out")
            return
        if odd := unknown_arguments(spec, arguments):
            self._note(step, op, f"{', '.join(odd)} without a counterpart; left out")
            return
        thresholds = self._thresholds(step, op, spec, arguments)
        if not thresholds:
            self._note(step, op, "keeps every record as it is set; left out")
            return
        operator = self._operator(step, op, spec, arguments)
        keys = {stat: operator if len(spec.stats) == 1 else f"{operator}.{stat}" for stat in spec.stats}
        self._dataset(f"by_{operator}", "filter", {keys[stat]: bound for stat, bound in thresholds.items()})

    def _thresholds(self, step: int, op: str, spec: OperatorSpec, arguments: Arguments) -> dict[str, dict[str, Any]]:
        """Stat → threshold, Data-Juicer's defaults where nothing else is said."""
        stated = {**spec.thresholds, **{key: value for key, value in arguments.items() if key in spec.thresholds}}
        known, found = bounds(spec), dict[str, dict[str, Any]]()
        for argument, value in stated.items():
            value = number(value)
            if argument in known and not is_open(value):
                stat, side = known[argument]
                if side == "one_of":
                    value = [value] if isinstance(value, str) else list(value)
                    if not any(value):
                        continue
                found.setdefault(stat, {})[side] = value
            elif argument not in known and argument != "any_or_all" and not is_open(value):
                self._note(step, op, f"{argument}: {value} without a counterpart; ignored")
        if stated.get("any_or_all") == "all":
            found = {stat: {**bound, "any_or_all": "all"} for stat, bound in found.items()}
        return found

    def _operator(self, step: int, op: str, spec: OperatorSpec, arguments: Arguments) -> str:
        """The operator's name, one of the same definition if there is one."""
        definition: dict[str, Any] = {"op": op}
        if (model := self._model_of(step, op, spec, arguments)) is not None:
            definition["model"] = model
        given = {key: arguments[key] for key in spec.parameters if key in arguments}
        changed = {key: value for key, value in given.items() if value != spec.parameters[key].default}
        if changed:
            definition["parameters"] = changed
        for name, known in self.operators.items():
            if known == definition:
                return name
        same = (name for name, known in self._like.get("operators", {}).items() if known == definition)
        known_as = next((name for name in same if name not in self.operators), None)
        name = str(known_as or _free(short_name(op), self.operators))
        self.operators[name] = definition
        return name

    def _model_of(self, step: int, op: str, spec: OperatorSpec, arguments: Arguments) -> str | None:
        if spec.model_argument:
            value = arguments.get(spec.model_argument) or default_of(op, spec.model_argument)
            return self.model(str(value)) if value else None
        if op in RESOURCE_OF_LOOKUP:
            name = RESOURCE_OF_LOOKUP[op]
            self._note(step, op, f"its model is the staged {resource_path(name)}")
            return self.model(str(resource_path(name)))
        if spec.model_parameter and arguments.get(spec.model_parameter):
            self._note(step, op, f"with `{spec.model_parameter}` it loads a model; name one by `model`")
        return None

    def model(self, where: str) -> str:
        """The entry of `models` for a folder or a repository of the hub."""
        for name, entry in {**self._like.get("models", {}), **self.models}.items():
            if where in (entry.get("hub"), entry.get("path")):
                self.models[name] = entry
                return str(name)
        name = _free(model_name(where), self.models)
        is_local = Path(where).exists() or where.startswith(("/", "."))
        self.models[name] = (
            {"path": where} if is_local else {"path": f"models/{where.rpartition('/')[2]}", "hub": where}
        )
        return name

    # deduplicators
    def same_text(self, step: int, op: str, arguments: Arguments) -> None:
        """`document_deduplicator`: equal texts."""
        if arguments.get("lowercase") or arguments.get("ignore_non_character"):
            self._note(step, op, "texts are compared as they are, letters' case and all signs included; left out")
            return
        self._dataset("distinct_texts", "dedup", {"by": "text"})

    def near_text(self, step: int, op: str, arguments: Arguments) -> None:
        """`document_minhash_deduplicator`: texts with many runs of words in common."""
        self._note(step, op, "near texts are found by 3-word shingles without MinHash; other rows may go")
        similarity = arguments.get("jaccard_threshold", 0.7)
        self._dataset("distinct_texts", "dedup", {"by": "text", "near": True, "similarity": similarity})

    def same_image(self, step: int, op: str, arguments: Arguments) -> None:
        """`image_deduplicator`: pictures of one hash."""
        if arguments.get("consider_text"):
            self._note(step, op, "pictures are compared without their texts (consider_text); left out")
            return
        self._note(step, op, "pictures are compared by sha256 and our own perceptual hash; other rows may go")
        if "image_hash" not in self.operators:
            self.operators["image_hash"] = {"op": "image_hash"}
        self._dataset("distinct_images", "dedup", {"by": "image", "near": True, "distance": 0})

    # mappers
    def caption(self, step: int, op: str, arguments: Arguments) -> None:
        """`image_captioning_mapper`: captions written anew, and the old ones kept beside them if so set."""
        settings: dict[str, Any] = {"model": self.model(arguments.get("hf_img2seq") or default_of(op, "hf_img2seq"))}
        if prompt := arguments.get("prompt"):
            settings["prompt"] = prompt
        if (candidates := arguments.get("caption_num", 1)) > 1:
            settings |= {"candidates": candidates, "keep": arguments.get("keep_candidate_mode", "random_any")}
        if odd := sorted(set(arguments) - {*CAPTIONING, *HOW}):
            self._note(step, op, f"{', '.join(odd)} without a counterpart; ignored")
        name = _free(f"captioner_{settings['model']}", self.captioners)
        self.captioners[name] = settings
        keep = arguments.get("keep_original_sample", True)
        self._note(step, op, "captions are drawn with a seed of the record, Data-Juicer's with none: other words")
        self._dataset(
            "recaptioned", "recaption", {"captioner": name, "seed": 0, **({"keep_original": True} if keep else {})}
        )

    def draw(self, step: int, op: str, arguments: Arguments) -> None:
        """`image_diffusion_mapper`: pictures drawn anew."""
        settings = {"model": self.model(arguments.get("hf_diffusion") or default_of(op, "hf_diffusion"))}
        settings |= {key: arguments[key] for key in ("strength", "guidance_scale") if key in arguments}
        if arguments.get("keep_original_sample", True):
            self._note(step, op, "a redrawn record takes the place of its original, which cannot stay beside it")
        if odd := sorted(set(arguments) - {*DRAWING, *HOW}):
            self._note(step, op, f"{', '.join(odd)} without a counterpart; ignored")
        name = _free(f"redrawer_{settings['model']}", self.redrawers)
        self.redrawers[name] = settings
        self._dataset("redrawn", "redraw", {"redrawer": name, "seed": 0})

    def sections(self) -> dict[str, Any]:
        """What there is, by the configuration's keys."""
        found = {
            "models": self.models,
            "operators": self.operators,
            "captioners": self.captioners,
            "redrawers": self.redrawers,
            "datasets": self.datasets,
        }
        return {key: value for key, value in found.items() if value}


CAPTIONING = {"hf_img2seq", "prompt", "caption_num", "keep_candidate_mode", "keep_original_sample"}
DRAWING = {"hf_diffusion", "strength", "guidance_scale", "keep_original_sample"}
STEPS: dict[str, Any] = {
    "document_deduplicator": Imported.same_text,
    "document_minhash_deduplicator": Imported.near_text,
    "image_deduplicator": Imported.same_image,
    "image_captioning_mapper": Imported.caption,
    "image_diffusion_mapper": Imported.draw,
}
"""Steps that are no filters, and what they are here."""


def _free(name: str, taken: Any) -> str:
    """The name, or with a number after it."""
    names = [name, *(f"{name}_{place}" for place in range(2, 1000))]
    return next(each for each in names if each not in taken)

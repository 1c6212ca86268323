"""Families of captioners and redrawers: which classes of model are known, how each is opened, and what it costs.

A family is one module of `bettersynth.sources.catalogue`, or a plug-in, which holds a `CaptionerFamily` or a
`RedrawerFamily`. Read for estimates too, so nothing here imports torch or transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.generators import Captioner
from bettersynth.configuration.registry import instances
from bettersynth.core.publish import read_json

PACKAGE = "bettersynth.sources.catalogue"
PLAIN = Cost(100, 60, 130, ("captions", "blip2_opt_2_7b_sampled_captions_per_s"))
"""Of a model that writes a short caption."""
CHAT = Cost(10, 120, 130, ("captions", "llava_1_5_7b_captions_per_s"))
"""Of a model that answers a question, at length."""
REDRAW = Cost(2, 60, 60_000, ("captions", "stable_diffusion_1_5_redraws_per_s"))


@dataclass(frozen=True)
class CaptionerFamily:
    """Models that are asked for captions in one way."""

    architecture: str
    """The class that a folder's `config.json` names."""
    model_type: str
    """What `config.json` says where it names no class."""
    kind: str
    """`module:Class` of the `sources.captioners.families.Family`, imported with the first caption."""
    processor: str | None = None
    """transformers' class, for a model that also takes videos: it is opened without that part."""
    answers: bool = False
    """Whether it answers questions."""
    cost: Cost = PLAIN

    @property
    def family(self) -> type:
        """The class that `kind` names, imported now."""
        module, _, name = self.kind.partition(":")
        found: type = getattr(import_module(module), name)
        return found


@dataclass(frozen=True)
class RedrawerFamily:
    """Diffusion pipelines, which diffusers has a class of for either direction."""

    name: str
    """The pipeline's name without `Pipeline` and `Img2Img`."""
    cost: Cost = REDRAW


@cache
def captioner_families() -> list[CaptionerFamily]:
    """All families of captioners."""
    return instances(PACKAGE, CaptionerFamily)


@cache
def redrawer_families() -> dict[str, RedrawerFamily]:
    """All families of redrawers, by name."""
    return {family.name: family for family in instances(PACKAGE, RedrawerFamily)}


def captioner_family(captioner: Captioner, folder: str | Path) -> CaptionerFamily:
    """The family of a captioner's model; while its folder is not here, one that fits its prompt."""
    config = Path(folder) / "config.json"
    known = family_of(read_json(config)) if config.is_file() else None
    answers = captioner.prompt is not None
    return known or next(family for family in captioner_families() if family.answers == answers)


def family_of(config: dict[str, Any]) -> CaptionerFamily | None:
    """The family of the model that a folder's `config.json` describes, if it is known."""
    named = (config.get("architectures") or [None])[0]
    for family in captioner_families():
        if named == family.architecture or (named is None and config.get("model_type") == family.model_type):
            return family
    return None


def redrawer_family(folder: str | Path) -> RedrawerFamily:
    """The family of a redrawer's pipeline; while its folder is not here, the first."""
    index = Path(folder) / "model_index.json"
    name = pipeline_family(read_json(index)["_class_name"]) if index.is_file() else ""
    return redrawer_families().get(name) or next(iter(redrawer_families().values()))


def pipeline_family(pipeline: str) -> str:
    """The name of the family that a pipeline's class is of."""
    return pipeline.removesuffix("Pipeline").removesuffix("Img2Img")

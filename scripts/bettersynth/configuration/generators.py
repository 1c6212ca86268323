"""What writes captions and redraws images."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from bettersynth.configuration.section import Name, Precision, Section
from bettersynth.core.names import StatKey


class BestBy(Section):
    """Keep the candidate that an operator scores highest."""

    best_by: str = Field(description="Operator, or `operator.stat`; a record's values count by their mean.")

    @property
    def operator(self) -> str:
        """The operator's name."""
        return StatKey.parse(self.best_by).operator

    @property
    def stat(self) -> str:
        """The stat's name; empty for an operator's only one."""
        return StatKey.parse(self.best_by).stat


class Captioner(Section):
    """A model that writes captions, of the class that its folder names.

    BLIP-2 (OPT or Flan-T5), LLaVA-1.5, LLaVA-NeXT, Qwen2-VL, Qwen2.5-VL, InternVL or Florence-2.
    """

    model: Name = Field(description="Entry of `models`.")
    engine: Literal["transformers", "vllm"] = Field(
        "transformers",
        description="What runs the model. vLLM needs an environment of its own; BLIP-2 with Flan-T5 and Florence-2 are "
        "not served by it.",
    )
    prompt: str | None = Field(
        None,
        description="Text given with the image. None: BLIP-2's plain captions, Florence-2's `<CAPTION>`, and "
        "`Describe the image.` for models that answer questions, which see it in their own chat form.",
    )
    max_new_tokens: int = Field(128, ge=1, le=4096)
    sampling: bool = Field(True, description="Sample (Data-Juicer's way) or decode greedily.")
    temperature: float = Field(1.0, gt=0)
    candidates: int = Field(1, ge=1, le=32, description="Captions drawn for each image.")
    keep: Literal["random_any", "similar_one_simhash", "all"] | BestBy = Field(
        "random_any",
        description="Which candidates stay: Data-Juicer's `keep_candidate_mode`, or the best by an operator's score. "
        "With `all`, every one makes a record; its id ends in `~` and the candidate's number, from 1.",
    )
    min_words: int = Field(1, ge=1, description="A candidate with fewer words is not kept.")
    max_words: int = Field(10_000, ge=1, description="A candidate with more words is not kept.")
    batch: int = Field(
        256, ge=1, description="Images whose captions are written at one time; halved when they do not fit the memory."
    )
    precision: Precision = Field("bf16", description="Of weights and arithmetic on a GPU; a CPU computes in fp32.")
    workers: int = Field(4, ge=0, description="Processes that decode images; vLLM's engine does without.")

    @model_validator(mode="after")
    def _can_be_meant(self) -> Captioner:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is above max_words {self.max_words}: nothing could be kept")
        if self.candidates > 1 and not self.sampling:
            raise ValueError(f"{self.candidates} candidates without `sampling` would all be the same")
        return self


class Redrawer(Section):
    """A diffusion pipeline, of the class that the folder's `model_index.json` names: Stable Diffusion, XL or 3."""

    model: Name = Field(description="Entry of `models`: a diffusers folder.")
    strength: float | None = Field(
        0.8,
        gt=0,
        le=1,
        description="How much of the image is drawn over, from the image and its caption; "
        "`null` draws a square from the caption alone (text-to-image).",
    )
    guidance_scale: float = Field(7.5, ge=0, description="How closely the caption is followed; 0 for turbo models.")
    steps: int = Field(50, ge=1, le=1000, description="Steps of the whole schedule; 1 to 4 for turbo models.")
    size: int = Field(512, ge=8, description="Side of the square the image is drawn at, in pixels.")
    batch: int = Field(8, ge=1, description="Images drawn at one time; halved when they do not fit into the memory.")
    precision: Precision = Field("bf16", description="Of weights and arithmetic on a GPU; a CPU computes in fp32.")

    @model_validator(mode="after")
    def _draws_something(self) -> Redrawer:
        if self.strength is not None and int(self.strength * self.steps) < 1:
            raise ValueError(
                f"strength {self.strength:g} of {self.steps} steps is less than one step: nothing is drawn"
            )
        return self

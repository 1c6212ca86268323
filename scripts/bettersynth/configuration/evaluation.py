"""The two benchmarks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bettersynth.configuration.section import Section


class TextVQA(Section):
    """TextVQA: read the text in the picture."""

    questions: str = Field(description="`llava_textvqa_val_v051_ocr.jsonl`.")
    annotations: str = Field(description="`TextVQA_0.5.1_val.json`.")
    images: str = Field(description="Folder of the images.")
    max_new_tokens: int = Field(128, ge=1)


class MMBench(Section):
    """MMBench: multiple choice under circular evaluation."""

    questions: str = Field(description="`mmbench_dev_20230712.tsv`, images inside.")
    max_new_tokens: int = Field(1024, ge=1)


class Evaluation(Section):
    """The two benchmarks of the contest."""

    textvqa: TextVQA
    mmbench: MMBench
    batch: int = Field(16, ge=1, description="Questions answered in one forward pass.")
    precision: Literal["fp16", "bf16", "fp32"] = "fp16"

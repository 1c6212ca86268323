"""What every part of the configuration has in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME_PATTERN = r"[a-z0-9][a-z0-9_]*"
"""Names of files, models, operators, datasets and recipes; also Snakemake's ``wildcard_constraints``."""

Name = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$", max_length=80)]
Precision = Literal["bf16", "fp16", "fp32"]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)

"""What every part of the configuration has in common."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationInfo, field_validator

NAME_PATTERN = r"[a-z0-9][a-z0-9_]*"
"""Names of files, models, operators, datasets and recipes; also Snakemake's ``wildcard_constraints``."""

Name = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$", max_length=80)]
Precision = Literal["bf16", "fp16", "fp32"]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


T = TypeVar("T")


class Written(BaseModel):
    """What a person writes: it does not change after loading."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _a_number_is_written_as_one(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what YAML makes of `yes` and `no` for a number: pydantic takes true and false for 1 and 0."""
        kinds = set(named_types(cls.model_fields[info.field_name or ""].annotation))
        if {int, float} & kinds and bool not in kinds and any(isinstance(leaf, bool) for leaf in _leaves(value)):
            raise ValueError(
                "a number is meant; YAML reads yes, no, on and off as true and false: write digits, or quote it"
            )
        return value


class Section(Written):
    """A part of the configuration: unknown keys are refused, values do not change after loading."""

    model_config = ConfigDict(extra="forbid")


class Value(Written, RootModel[T], Generic[T]):
    """A part of the configuration without keys of its own: a number, a list, a mapping of names. It is in `root`."""


def named_types(annotation: Any) -> list[Any]:
    """Every type that an annotation names, in order."""
    arguments = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return [annotation] if not arguments else [kind for argument in arguments for kind in named_types(argument)]


def _leaves(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return [value] if inner is None else [leaf for part in inner for leaf in _leaves(part)]

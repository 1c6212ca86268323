"""The section `evaluation`: every known benchmark has a key in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ModelWrapValidatorHandler, PrivateAttr, create_model, model_validator

from bettersynth.configuration.benchmark import Benchmark
from bettersynth.configuration.registry import subclasses
from bettersynth.configuration.section import Section

BENCHMARKS = {
    kind.name: kind
    for kind in subclasses("bettersynth.evaluation.benchmarks", Benchmark)  # type: ignore[type-abstract]
}
"""The known benchmarks by name."""


class _Evaluation(Section):
    batch: int = Field(16, ge=1, description="Questions answered in one forward pass.")
    precision: Literal["fp16", "bf16", "fp32"] = "fp16"

    _order: tuple[str, ...] = PrivateAttr(())

    @property
    def benchmarks(self) -> dict[str, Benchmark]:
        """The benchmarks that the configuration names, by name and in its order."""
        return {name: getattr(self, name) for name in self._order}

    @model_validator(mode="wrap")
    @classmethod
    def _in_the_order_given(cls, given: Any, handler: ModelWrapValidatorHandler[_Evaluation]) -> _Evaluation:
        evaluation = handler(given)
        if isinstance(given, Mapping):
            evaluation._order = tuple(name for name in given if name in BENCHMARKS and given[name] is not None)
            if not evaluation._order:
                raise ValueError(f"names no benchmark; known: {', '.join(BENCHMARKS)}")
        return evaluation


if TYPE_CHECKING:
    Evaluation = _Evaluation
else:
    Evaluation = create_model(
        "Evaluation",
        __base__=_Evaluation,
        __module__=__name__,
        __doc__="The benchmarks that trained models are asked: one or more of those known, in the leaderboard's order.",
        **{name: (kind | None, None) for name, kind in BENCHMARKS.items()},
    )

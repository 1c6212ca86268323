"""Score one run's answers to one benchmark and publish `result.json`."""

from __future__ import annotations

from typing import Any

from bettersynth.configuration.types import Configuration
from bettersynth.core.digests import check_by_card
from bettersynth.core.layout import CHECKPOINT, Layout
from bettersynth.core.publish import read_json, write_sealed
from bettersynth.training.model_card import write_model_card


def score_answers(
    benchmark: str, recipe: str, seed: int, configuration: Configuration, layout: Layout
) -> dict[str, Any]:
    """Score the answers of `recipe` with `seed`; write and return the result, and put it on the model's card.

    A run whose seed was stopped after the probe has no answers: its result is `status: stopped`, without accuracy.
    Raises `AnswersError` for an answer file that is not whole.
    """
    result = {"status": read_json(layout.answers_card(recipe, seed, benchmark))["status"], "benchmark": benchmark}
    if result["status"] != "stopped":
        check_by_card(layout.answers(recipe, seed, benchmark), layout.answers_card(recipe, seed, benchmark))
        result |= configuration.benchmarks[benchmark].score(layout.answers(recipe, seed, benchmark))
    result = write_sealed(layout.result(recipe, seed, benchmark), result)
    model = layout.finetune(recipe, seed) / CHECKPOINT
    if result["status"] != "stopped" and model.is_dir():
        write_model_card(layout.run(recipe, seed), model)
    return result

"""Ask a run's model the questions of the benchmarks; one job asks those of all, so the model is loaded once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bettersynth.configuration.pool import USUAL
from bettersynth.configuration.types import Configuration
from bettersynth.core import versions
from bettersynth.core.digests import check
from bettersynth.core.layout import CARD, CHECKPOINT, Layout
from bettersynth.core.publish import Card, publish, read_json, sha256_file, write_json, write_sealed
from bettersynth.core.steady import Steady


def write_answers(recipe: str, seed: int, configuration: Configuration, layout: Layout) -> None:
    """Publish the answers of a run's model to every benchmark: `answers.jsonl` and its card.

    Answers that are there stay when the same was asked of the same model, each benchmark for itself: only its card is
    published again. The run of a seed that was stopped after the probe has no model: its files are empty. In as many
    processes as there are GPUs.
    """
    if read_json(layout.finetune(recipe, seed) / CARD)["status"] == "stopped":
        for name in configuration.benchmarks:
            _write_lines(layout.answers(recipe, seed, name), [])
            card = Card(recipe=recipe, seed=seed, benchmark=name, status="stopped")
            card.write(layout.answers_card(recipe, seed, name))
        return
    due = _due(recipe, seed, configuration, layout)
    for name in configuration.benchmarks.keys() - due:
        write_sealed(layout.answers_card(recipe, seed, name), read_json(_done(recipe, seed, name, layout)))
    if due:
        from bettersynth.training.mgm.processes import run

        run(f"{__name__}:ask", recipe, seed, configuration, layout)


def ask(recipe: str, seed: int, configuration: Configuration, layout: Layout) -> None:
    """Ask the questions of those benchmarks whose answers are not there; the work of one process, or of each."""
    from bettersynth.training.mgm.generation import Answerer
    from bettersynth.training.mgm.processes import is_main_process

    due = _due(recipe, seed, configuration, layout)
    evaluation, model = configuration.evaluation, layout.finetune(recipe, seed)
    assert evaluation is not None
    check(model / CHECKPOINT, read_json(model / CARD)["sha256"], model / CARD)
    started = time.monotonic()
    answerer = Answerer.open(model / CHECKPOINT, evaluation.precision, configuration.pool.reading)
    loading = {"loading": round(time.monotonic() - started, 3)}
    for name, inputs in due.items():
        card = Card(recipe=recipe, seed=seed, benchmark=name, status="done", inputs=inputs, seconds_by_part=loading)
        benchmark, path = configuration.benchmarks[name], layout.answers(recipe, seed, name)
        asked = list(benchmark.asked())
        questions = (question for question, _ in asked)
        steady = Steady()
        texts = answerer.answers(questions, benchmark.max_new_tokens, evaluation.batch, steady)
        if is_main_process():
            ends = ({"text": text, "model_id": f"{recipe}-seed-{seed}"} for text in texts)
            _write_lines(path, [line | end for (_, line), end in zip(asked, ends, strict=True)])
            told = {"rows": len(asked), "sha256": sha256_file(path), **steady.facts()}
            facts = card.write(layout.answers_card(recipe, seed, name), **told)
            write_json(_done(recipe, seed, name, layout), facts)


def _due(recipe: str, seed: int, configuration: Configuration, layout: Layout) -> dict[str, dict[str, Any]]:
    """The benchmarks that are to be asked, and what decides their answers."""
    model = read_json(layout.finetune(recipe, seed) / CARD)["sha256"]
    wanted = {name: {"model_sha256": model, **_inputs(name, configuration)} for name in configuration.benchmarks}
    return {name: inputs for name, inputs in wanted.items() if not _are_there(recipe, seed, name, inputs, layout)}


def _inputs(name: str, configuration: Configuration) -> dict[str, Any]:
    benchmark, evaluation = configuration.benchmarks[name], configuration.evaluation
    assert evaluation is not None
    grey = configuration.pool.deep_grey
    return {
        "questions_sha256": sha256_file(benchmark.questions),
        "max_new_tokens": benchmark.max_new_tokens,
        "precision": evaluation.precision,
        "version": versions.ANSWER + benchmark.prompt_version,
        **({} if grey == USUAL.deep_grey else {"deep_grey": grey}),
    }


def _are_there(recipe: str, seed: int, name: str, inputs: dict[str, Any], layout: Layout) -> bool:
    done, path = _done(recipe, seed, name, layout), layout.answers(recipe, seed, name)
    if not (done.exists() and path.exists()):
        return False
    before = read_json(done)
    return bool(before["inputs"] == inputs and before["sha256"] == sha256_file(path))


def _done(recipe: str, seed: int, name: str, layout: Layout) -> Path:
    """A copy of the card for the next job: Snakemake deletes a job's outputs before it begins."""
    return layout.answers_card(recipe, seed, name).with_name("done.json")


def _write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    with publish(path) as temporary:
        temporary.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")

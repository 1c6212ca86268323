"""Evaluation: every question is answered once, by the model that is there, and scored as it is scored again."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bettersynth.core.layout import CARD, CHECKPOINT
from bettersynth.core.publish import SEAL
from bettersynth.evaluation.answers import read_answers
from bettersynth.inspect.audit.links import Audited, Link
from bettersynth.training.model_card import model_card
from bettersynth.workflow.manifest import Problem


def links(audited: Audited) -> Iterator[Link]:
    """The benchmarks' questions, then answers and scores of every run, and the card of its model."""
    layout, configuration = audited.layout, audited.configuration
    for benchmark in configuration.benchmarks:
        if layout.questions_card(benchmark).exists():
            yield Link(layout.questions_card(benchmark), partial(_questions, audited, benchmark))
    for recipe, settings in configuration.recipes.items():
        for seed in settings.seeds:
            for benchmark in configuration.benchmarks:
                run = recipe, seed, benchmark
                if layout.answers_card(*run).exists():
                    yield Link(layout.answers_card(*run), partial(_answers, audited, *run))
                if layout.result(*run).exists():
                    yield Link(layout.result(*run), partial(_result, audited, *run))
            readme = layout.finetune(recipe, seed) / CHECKPOINT / "README.md"
            if readme.exists():
                yield Link(readme, partial(_model_card, audited, recipe, seed, readme))


def _questions(audited: Audited, benchmark: str) -> Iterator[Problem]:
    path = audited.layout.questions_card(benchmark)
    audited.check_beside(path)
    yield from audited.made_of(path, audited.card(path)["inputs"], {})


def _answers(audited: Audited, recipe: str, seed: int, benchmark: str) -> Iterator[Problem]:
    layout = audited.layout
    path, file = layout.answers_card(recipe, seed, benchmark), layout.answers(recipe, seed, benchmark)
    card = audited.card(path)
    if card["status"] == "stopped":
        yield from audited.mismatch(file, "answers of a run that was stopped", len(read_answers(file)), 0, path)
        return
    audited.check(file, card["sha256"], path)
    if (done := path.with_name("done.json")).exists():
        yield from audited.mismatch(done, "its copy of the card", audited.card(done), card)
    yield from audited.mismatch(file, "answers", len(read_answers(file)), card["rows"], path)
    model = layout.finetune(recipe, seed) / CARD
    if audited.card(model).get("sha256") != card["inputs"]["model_sha256"]:
        yield audited.outdated(path, f"the model that was asked is not the one of {model}")
    questions = audited.configuration.benchmarks[benchmark].questions
    yield from audited.made_of(path, {questions: card["inputs"]["questions_sha256"]}, {})


def _result(audited: Audited, recipe: str, seed: int, benchmark: str) -> Iterator[Problem]:
    """Scoring refuses answers that are missing, unknown or there twice."""
    layout, settings = audited.layout, audited.configuration.benchmarks[benchmark]
    path, answers = layout.result(recipe, seed, benchmark), layout.answers(recipe, seed, benchmark)
    result = {key: value for key, value in audited.card(path).items() if key != SEAL}
    status = audited.card(layout.answers_card(recipe, seed, benchmark))["status"]
    made = {"status": status, "benchmark": benchmark}
    if status != "stopped":
        if not all(Path(file).exists() for file in settings.files):  # carried elsewhere, where scores came home from
            return
        made |= settings.score(answers)
    if result != made:
        yield audited.problem(path, f"is not what {answers} are scored")


def _model_card(audited: Audited, recipe: str, seed: int, path: Path) -> Iterator[Problem]:
    made = model_card(audited.layout.run(recipe, seed), path.parent).splitlines()
    if path.read_text(encoding="utf-8").splitlines()[: len(made)] != made:
        yield Problem(path, "is not what the cards of its stages and its scores say", f"rm {path}")

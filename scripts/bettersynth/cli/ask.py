"""Ask a trained model a question about a picture."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from bettersynth.cli.options import FILE, config, recipe
from bettersynth.configuration.load import check_recipe
from bettersynth.configuration.pool import USUAL, Reading
from bettersynth.core.errors import PersonError
from bettersynth.core.publish import read_json
from bettersynth.runtime.patches.model_code import forbid_model_code
from bettersynth.workflow.run import Run


@click.command(help=__doc__)
@click.argument("image", type=FILE)
@click.argument("question")
@config
@recipe("(default: the first that has a trained model)")
@click.option("--seed", type=int, help="(default: likewise)")
@click.option("--max-new-tokens", type=int, default=128, show_default=True)
def command(
    image: Path, question: str, config_file: Path, recipe: str | None, seed: int | None, max_new_tokens: int
) -> None:
    """Print the answer, and on standard error which model gave it."""
    run = Run.open(config_file)
    folder = find_model(run, recipe, seed)
    forbid_model_code()
    try:
        click.echo(answer(folder, question, image, max_new_tokens, run.configuration.pool.reading))
    except ValueError as error:
        raise PersonError(str(error)) from error


def find_model(run: Run, recipe: str | None, seed: int | None) -> Path:
    """The first trained model of these names. Raises PersonError, with what to do."""
    check_recipe(run.configuration, recipe)
    recipes = [recipe] if recipe else list(run.configuration.recipes)
    for name in recipes:
        for number in run.configuration.recipes[name].seeds if seed is None else [seed]:
            folder = run.layout.finetune(name, number) / "checkpoint"
            if folder.is_dir():
                print(f"{name}, seed {number}:", file=sys.stderr)
                return folder
    if stopped := [told for name in recipes for told in _stopped(run, name, seed)]:
        raise PersonError("; ".join(stopped) + "; only a seed that goes on after its probe has a model to ask")
    asked = f"recipe `{recipe}`" if recipe else "any recipe"
    seeds = "" if seed is None else f" and seed {seed}"
    raise PersonError(
        f"no trained model of {asked}{seeds} in {run.layout.root}; train one: "
        f"make run CONFIG={run.config_file}{f' RECIPE={recipe}' if recipe else ''}"
    )


def _stopped(run: Run, recipe: str, seed: int | None) -> Iterator[str]:
    """The seeds (or the one asked for) of a recipe that went no further, and why."""
    for number in run.configuration.recipes[recipe].seeds if seed is None else [seed]:
        card = run.layout.finetune(recipe, number) / "card.json"
        facts = read_json(card) if card.exists() else {}
        if facts.get("status") == "stopped":
            stopped = "training failed of" if facts.get("fate") == "failed" else "the probe stopped"
            yield f"{stopped} {recipe}, seed {number} ({facts.get('why', 'the reason is not known')})"


def answer(folder: Path, question: str, image: Path, max_new_tokens: int, reading: Reading = USUAL) -> str:
    """The answer of the model in a folder."""
    import torch

    from bettersynth.training.mgm.generation import Question, answer_questions

    precision = "fp16" if torch.cuda.is_available() else "fp32"
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "precision": precision, "reading": reading}
    return answer_questions(folder, [Question("asked", question, image)], batch=1, **options)[0]

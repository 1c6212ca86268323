"""Ask a trained model a question about a picture (`make ask`)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bettersynth.configuration import Configuration, ConfigurationError, load
from bettersynth.configuration.pool import USUAL, Reading
from bettersynth.core.layout import Layout
from bettersynth.core.offline import ENVIRONMENT
from bettersynth.core.publish import read_json


def main() -> None:
    """Print the answer, and on standard error which model gave it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("question")
    parser.add_argument("--config", default="config/miniature.yaml")
    parser.add_argument("--recipe", help="(default: the first that has a trained model)")
    parser.add_argument("--seed", type=int, help="(default: likewise)")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    options = parser.parse_args()
    try:
        configuration = load(options.config)
        layout = Layout(Path("results") / str(configuration.name))
        folder = find_model(configuration, layout, options.recipe, options.seed, options.config)
        os.environ.update(ENVIRONMENT)
        print(answer(folder, options.question, options.image, options.max_new_tokens, configuration.pool.reading))
    except (ConfigurationError, LookupError, ValueError) as error:
        sys.exit(str(error.args[0]))


def find_model(configuration: Configuration, layout: Layout, recipe: str | None, seed: int | None, config: str) -> Path:
    """The first trained model of these names. Raises LookupError, with what to do."""
    if recipe is not None and recipe not in configuration.recipes:
        raise LookupError(f"{config} has no recipe `{recipe}`; there are: {', '.join(configuration.recipes)}")
    recipes = [recipe] if recipe else list(configuration.recipes)
    for name in recipes:
        for number in configuration.recipes[name].seeds if seed is None else [seed]:
            folder = layout.finetune(name, number) / "checkpoint"
            if folder.is_dir():
                print(f"{name}, seed {number}:", file=sys.stderr)
                return folder
    if stopped := [run for name in recipes for run in _stopped(layout, name, configuration.recipes[name].seeds, seed)]:
        raise LookupError("; ".join(stopped) + "; only a seed that goes on after its probe has a model to ask")
    asked = f"recipe `{recipe}`" if recipe else "any recipe"
    seeds = "" if seed is None else f" and seed {seed}"
    raise LookupError(
        f"no trained model of {asked}{seeds} in {layout.root}; train one: "
        f"make run CONFIG={config}{f' RECIPE={recipe}' if recipe else ''}"
    )


def _stopped(layout: Layout, recipe: str, seeds: list[int], seed: int | None) -> Iterator[str]:
    """The seeds (or the one asked for) of a recipe that the probe stopped, and why."""
    for number in seeds if seed is None else [seed]:
        card = layout.finetune(recipe, number) / "card.json"
        facts = read_json(card) if card.exists() else {}
        if facts.get("status") == "stopped":
            yield f"the probe stopped {recipe}, seed {number} ({facts.get('why', 'the reason is not known')})"


def answer(folder: Path, question: str, image: Path, max_new_tokens: int, reading: Reading = USUAL) -> str:
    """The answer of the model in a folder."""
    import torch

    from bettersynth.training.mgm.generation import Question, answer_questions

    precision = "fp16" if torch.cuda.is_available() else "fp32"
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "precision": precision, "reading": reading}
    return answer_questions(folder, [Question("asked", question, image)], batch=1, **options)[0]


if __name__ == "__main__":
    main()

"""Write a trained model's answers as a benchmark's own server takes them."""

from __future__ import annotations

from pathlib import Path

import click

from bettersynth.cli.ask import find_model
from bettersynth.cli.options import FILE, config, recipe
from bettersynth.core.errors import PersonError
from bettersynth.evaluation.answers import AnswersError
from bettersynth.workflow.run import Run


@click.command(help=__doc__)
@config
@recipe("(default: the first that has a trained model)")
@click.option("--seed", type=int, help="(default: likewise)")
@click.option("--benchmark", "name", default="mmbench", show_default=True)
@click.option("--to", type=FILE, required=True, metavar="FILE.xlsx")
def command(config_file: Path, recipe: str | None, seed: int | None, name: str, to: Path) -> None:
    """Write the file and print its path."""
    run = Run.open(config_file)
    if name not in run.configuration.benchmarks:
        raise PersonError(f"{config_file}: no benchmark {name}; there are: {', '.join(run.configuration.benchmarks)}")
    folder = find_model(run, recipe, seed)
    answers = folder.parents[1] / "evaluation" / name / "answers.jsonl"
    try:
        run.configuration.benchmarks[name].upload(answers, to)
    except (AnswersError, FileNotFoundError) as error:
        raise PersonError(f"{error}; to have the questions asked: make run CONFIG={config_file}") from error
    click.echo(to)

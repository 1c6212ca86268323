"""Say in words where datasets and recipes come from, with the counts that are known."""

from __future__ import annotations

from pathlib import Path

import click

from bettersynth.cli.options import config
from bettersynth.inspect.explain import Explanation
from bettersynth.workflow.run import Run


@click.command(help=__doc__)
@config
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="(may be given several times)")
@click.option("--recipe", "recipes", multiple=True, metavar="NAME", help="(default: all, when no dataset is named)")
def command(config_file: Path, datasets: tuple[str, ...], recipes: tuple[str, ...]) -> None:
    """Print one text for each name."""
    run = Run.open(config_file)
    explanation = Explanation(run.configuration, config_file, run.layout)
    texts = [explanation.dataset(name) for name in datasets]
    texts += [explanation.recipe(name) for name in recipes or (() if texts else run.configuration.recipes)]
    click.echo("\n\n\n".join(texts))

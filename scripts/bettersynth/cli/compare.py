"""Say whether two recipes differ by more than luck: by the runs that are there, of all recipes."""

from __future__ import annotations

from pathlib import Path

import click

from bettersynth.cli.options import config
from bettersynth.configuration.load import check_recipe
from bettersynth.core.errors import PersonError
from bettersynth.report.runs import board_of
from bettersynth.report.verdicts import compared
from bettersynth.workflow.run import Run


@click.command(help=__doc__)
@config
@click.argument("recipe")
@click.argument("other")
def command(config_file: Path, recipe: str, other: str) -> None:
    """Print both recipes' accuracies, their difference by benchmark, and the verdict."""
    run = Run.open(config_file)
    board = board_of(run.configuration, run.layout).board
    for name in (recipe, other):
        check_recipe(run.configuration, name)
        if name not in board.recipes:
            raise PersonError(
                f"{name} has no finished run that was not picked by its early loss, so there is nothing to compare; "
                f"where its runs are: make explain CONFIG={config_file} RECIPE={name}"
            )
    click.echo("\n".join(compared(board, recipe, other)))

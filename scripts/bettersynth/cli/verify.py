"""Check what was staged for a configuration or a recipe, without a network."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from bettersynth.cli.options import config, recipe
from bettersynth.configuration.load import check_recipe
from bettersynth.core.commands import make
from bettersynth.inspect.opened import unopened
from bettersynth.workflow.manifest import check_everything, manifest_path
from bettersynth.workflow.run import Run


@click.command(help=__doc__)
@config
@recipe("only what this recipe needs")
def command(config_file: Path, recipe: str | None) -> None:
    """Print every file that is not as it should be; exit status 1 when there is one."""
    started = time.monotonic()
    run = Run.open(config_file)
    configuration = run.configuration
    recipe = check_recipe(configuration, recipe)
    what = f"recipe {recipe} of {config_file}" if recipe else config_file
    problems = list(check_everything(configuration, config_file, recipe))
    again = make("stage", config=config_file)
    problems += unopened(configuration, run.layout, recipe, again, {problem.path for problem in problems})
    for problem in problems:
        click.echo(problem)
    if problems:
        sys.exit(f"verify: {len(problems)} of the files that {what} needs are not as they should be")
    manifest = manifest_path(configuration)
    whole = f"whole, as far as it tells by itself; `make stage CONFIG={config_file}` lists it for comparison"
    listed = f"as {manifest} lists it" if manifest.exists() else whole
    click.echo(f"everything that {what} needs is there, {listed} ({time.monotonic() - started:.1f} s)")

"""Say how far a run is: done, running, queued, failed, time left."""

from __future__ import annotations

from pathlib import Path

import click

from bettersynth.cli.options import config
from bettersynth.inspect.status import describe
from bettersynth.workflow.run import Run


@click.command(help=__doc__)
@config
def command(config_file: Path) -> None:
    """Print the state of the run."""
    run = Run.open(config_file)
    click.echo(describe(run.configuration, run.layout))

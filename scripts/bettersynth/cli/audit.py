"""Look at every file of a run and hold it against what it was made of; name the first broken link."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from bettersynth.cli.options import config
from bettersynth.workflow.run import Run

SHOWN = 20


@click.command(help=__doc__)
@config
@click.option("--all-bytes", is_flag=True, help="read every byte, whatever is remembered of files")
def command(config_file: Path, all_bytes: bool) -> None:
    """Print what is wrong, in the order of the graph, and what mends it; exit status 1 when something is."""
    from bettersynth.inspect.audit import Audited, look_at_all

    started, run = time.monotonic(), Run.open(config_file)
    if not run.layout.root.exists():
        sys.exit(f"There are no results of {config_file}: no {run.layout.root}")
    audited = Audited(run.configuration, run.layout, run.plan, all_bytes=all_bytes)
    number, problems = look_at_all(audited)
    for problem in problems[:SHOWN]:
        click.echo(problem)
    if len(problems) > SHOWN:
        click.echo(f"… and {len(problems) - SHOWN} more")
    spent = f"({time.monotonic() - started:.1f} s)"
    if problems:
        follow = " What comes after it may follow from it: mend it first." if len(problems) > 1 else ""
        sys.exit(f"audit: {len(problems)} problems in {number} links, the first in {problems[0].path}.{follow} {spent}")
    click.echo(f"all {number} links of {run.layout.root} hold {spent}")

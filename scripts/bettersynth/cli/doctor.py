"""Look at the SLURM cluster and say what to change in the profile."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bettersynth.cli.options import config
from bettersynth.configuration import load
from bettersynth.slurm.doctor import examine


@click.command(help=__doc__)
@config
def command(config_file: Path) -> None:
    """Print the findings as they are made; exit status 1 when one of them is a problem."""
    findings = []
    for finding in examine(Path.cwd(), load(config_file).scoring.shards_per_job):
        click.echo(finding)
        findings.append(finding)
    sys.exit(0 if all(finding.ok for finding in findings) else 1)

"""Look at the SLURM cluster and say what to change in the profile."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bettersynth.cli.options import config
from bettersynth.configuration import load
from bettersynth.core.layout import Layout
from bettersynth.slurm.doctor import examine
from bettersynth.workflow.jobs import Jobs
from bettersynth.workflow.jobs.specification import Kind


@click.command(help=__doc__)
@config
def command(config_file: Path) -> None:
    """Print the findings as they are made; exit status 1 when one of them is a problem."""
    configuration = load(config_file)
    jobs = Jobs(configuration, Layout(f"results/{configuration.name}"))
    rules = {rule.name: rule.resources for rule in jobs if rule.kind is not Kind.LIGHT}
    findings = []
    for finding in examine(Path.cwd(), rules, jobs.on_gpu, configuration.scoring.shards_per_job):
        click.echo(finding)
        findings.append(finding)
    sys.exit(0 if all(finding.ok for finding in findings) else 1)

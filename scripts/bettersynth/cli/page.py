"""Write leaderboard and page from what a run has made so far, beside the final ones."""

from __future__ import annotations

from pathlib import Path

import click

from bettersynth.cli.options import config
from bettersynth.core.layout import Layout
from bettersynth.report.early_loss import build_early_loss
from bettersynth.report.leaderboard import build_leaderboard
from bettersynth.report.page import build_report
from bettersynth.report.trackers import track
from bettersynth.workflow.run import Run


class SoFar(Layout):
    """The layout of a run that is still going on: Snakemake's own report stays as it is."""

    @property
    def leaderboard(self) -> Path:
        """The leaderboard of the results that are there."""
        return self.root / "report" / "so_far" / "leaderboard.json"

    @property
    def report(self) -> Path:
        """The page over the results that are there."""
        return self.leaderboard.with_name("index.html")


@click.command(help=__doc__)
@config
def command(config_file: Path) -> None:
    """Write both and print where the page is."""
    run = Run.open(config_file)
    layout = SoFar(run.layout.root)
    if run.configuration.recipes:
        leaderboard = build_leaderboard(run.configuration, layout)
        track(leaderboard, layout, list(run.configuration.benchmarks), run.configuration.report.tracker)
        build_early_loss(run.configuration, layout)
    click.echo(f"Page: {build_report(run.configuration, layout, run.plan).resolve()}")

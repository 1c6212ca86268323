"""Write all scores, captions and image paths as one Parquet table for other tools."""

from __future__ import annotations

from pathlib import Path

import click

from bettersynth.cli.options import config
from bettersynth.core.records import POOL
from bettersynth.datasets.scores_table import write_scores_table
from bettersynth.inspect.looks import check_rows, told
from bettersynth.workflow.run import Run


@click.command(help=__doc__)
@config
def command(config_file: Path) -> None:
    """Write the table, and say what opens it."""
    run = Run.open(config_file)
    check_rows(run, POOL)
    with told():
        table = write_scores_table(run.layout, run.plan)
    path = run.layout.scores_table
    click.echo(f"{table.num_rows:,} records with {table.num_columns - 5} scores: {path}")
    click.echo(
        f"Next: duckdb -c \"SELECT source, count(*) FROM '{path}' GROUP BY source\"   (docs/exploring.md has more)"
    )

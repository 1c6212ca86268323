"""Say which differences the contest's published tables support, with one run of each recipe."""

from __future__ import annotations

import math
from pathlib import Path

import click

from bettersynth.configuration.ledger import read_ledger
from bettersynth.report.published import PublishedBoard

LEDGER = Path("resources") / "contest" / "ledger.yaml"
TABLES = {"the write-up's": "SDT", "lemon-little's": "L"}
MOST = 8


@click.command(help=__doc__)
@click.option(
    "--ledger", type=click.Path(exists=True, path_type=Path), default=LEDGER, show_default=True, help="published rows"
)
def command(ledger: Path) -> None:
    """Print a sentence for each table, and the pairs that differ most surely."""
    read = read_ledger(ledger)
    for title, letters in TABLES.items():
        board = PublishedBoard(read, letters)
        click.echo(f"{title[0].upper()}{title[1:]} table. {board.sentence()}")
        for pair in board.pairs()[:MOST]:
            ratio = math.exp(pair.difference.mean)
            low, high = math.exp(pair.difference.low), math.exp(pair.difference.high)
            words = f"×{ratio:.2f} ({low:.2f} to {high:.2f}), p = {pair.difference.p:.3f}, corrected {pair.p_holm:.2f}"
            click.echo(f"  {pair.first:>4} over {pair.second:<4} {words}")

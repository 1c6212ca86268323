"""Fetch the word lists and taggers that some operators read, into models/ (part of `make setup`)."""

from __future__ import annotations

from pathlib import Path

import click

from bettersynth.core.resources import fetch_resources


@click.command(help=__doc__)
def command() -> None:
    """Fetch what is not there."""
    fetch_resources(Path("models"))

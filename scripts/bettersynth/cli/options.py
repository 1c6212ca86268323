"""Options that many commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

FILE = click.Path(path_type=Path)

config: Any = click.option(
    "--config",
    "config_file",
    type=FILE,
    default=Path("config/miniature.yaml"),
    show_default=True,
    help="configuration file",
)


def recipe(meaning: str) -> Any:
    """The option `--recipe`."""
    return click.option("--recipe", metavar="NAME", help=meaning)

"""Options that many commands have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from bettersynth.core.commands import CONFIG_FILE

FILE = click.Path(path_type=Path)


def _named(context: click.Context, parameter: click.Parameter, config_file: Path) -> Path:
    """What the commands name that messages tell to type."""
    os.environ[CONFIG_FILE] = str(config_file)
    return config_file


config: Any = click.option(
    "--config",
    "config_file",
    type=FILE,
    callback=_named,
    default=Path("config/miniature.yaml"),
    show_default=True,
    help="configuration file",
)


def recipe(meaning: str) -> Any:
    """The option `--recipe`."""
    return click.option("--recipe", metavar="NAME", help=meaning)

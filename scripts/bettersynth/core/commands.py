"""The commands that messages tell a person to type: right as printed, for the configuration that is being run."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

CONFIG_FILE = "BETTERSYNTH_CONFIG"
"""Environment variable that names the configuration's file: the Makefile and the Snakefile set it, jobs inherit it."""


def make(target: str, *, config: str | Path | None = None, **variables: str) -> str:
    """`make TARGET CONFIG=… NAME=value`, for a shell; without `config`, that of the run."""
    config = config or os.environ.get(CONFIG_FILE)
    given = ({"CONFIG": str(config)} if config else {}) | variables
    return " ".join(["make", target, *(f"{name}={shlex.quote(value)}" for name, value in given.items())])

"""Models bring data and no programs: what a library would run of a model's folder is refused, whatever it was told."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

from bettersynth.runtime.patches.environment import ENVIRONMENT

COPIED_TO = ("transformers_modules", "diffusers_modules")
"""Packages, below `HF_MODULES_CACHE`, that transformers and diffusers copy a model's programs to, to import them."""


class ModelCodeError(ValueError):
    """A model asks for a program of its own to be run."""

    def __init__(self, where: str | Path) -> None:
        super().__init__(
            f"{where}: the model brings a program of its own, and no model's is run: it could do anything that you may "
            "do. Name one that transformers or diffusers open by themselves"
        )


@cache
def forbid_model_code() -> None:
    """Refuse, for this process and for good, to run what came with a model, and to ask whether to.

    Some ways are open whatever `trust_remote_code` says: transformers runs a local folder's `custom_generate`.
    """
    os.environ.update(ENVIRONMENT)

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "exec" and isinstance(code := arguments[0], CodeType):
            if any(package in code.co_filename for package in COPIED_TO):
                raise ModelCodeError(code.co_filename)
        elif event == "builtins.input":
            raise EOFError("nobody answers in a job")

    sys.addaudithook(refuse)


def close_standard_input() -> None:
    """Let nothing that this process starts read what a person types, or wait for it."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

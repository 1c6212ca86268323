"""NLTK: word lists from the staged folder, no downloads."""

from __future__ import annotations

import importlib
import os
from typing import Any

from bettersynth.core.resources import MODELS, NLTK_DATA
from bettersynth.runtime.patches.versions import made_for


def read_local_data() -> None:
    """Where NLTK looks for its data; read when it is imported."""
    os.environ["NLTK_DATA"] = str((MODELS / NLTK_DATA).resolve())


def forbid_downloads() -> None:
    """Let `nltk.download` do nothing; Data-Juicer calls it, and goes on without."""
    made_for("nltk")
    nltk: Any = importlib.import_module("nltk")
    nltk.download = lambda *arguments, **options: False

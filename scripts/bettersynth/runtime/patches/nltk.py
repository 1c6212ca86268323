"""NLTK: word lists from the staged folder, no downloads."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from bettersynth.core.resources import MODELS, NLTK_DATA
from bettersynth.runtime.patches.versions import made_for


def read_local_data() -> None:
    """Where NLTK looks for its data: read when it is imported, so one that is imported already is told."""
    folder = str((MODELS / NLTK_DATA).resolve())
    os.environ["NLTK_DATA"] = folder
    if (data := sys.modules.get("nltk.data")) and folder not in data.path:
        data.path.insert(0, folder)


def forbid_downloads() -> None:
    """Let `nltk.download` do nothing; Data-Juicer calls it, and goes on without."""
    made_for("nltk")
    nltk: Any = importlib.import_module("nltk")
    nltk.download = lambda *arguments, **options: False

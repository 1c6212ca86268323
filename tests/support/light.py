"""A run that loads no model: two datasets that need words alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from workflow import CONFIGURATION, Run

from miniature.render import render_world


def light_configuration() -> dict[str, Any]:
    """The pool, one operator of words, and what is made of them."""
    configuration = {name: copy.deepcopy(CONFIGURATION[name]) for name in ("pool", "trainset")}
    configuration["operators"] = {"words_num": {"op": "words_num_filter"}}
    configuration["datasets"] = {
        "wordy": {"from": "pool", "filter": {"words_num": {"min": 6}}},
        "twice": {"from": "wordy", "repeat": 2},
    }
    return configuration


def light_run(folder: Path) -> Run:
    """Such a run in a folder, with its data and nothing done."""
    render_world(folder / "data", records=12, second_records=4, textvqa=2, mmbench=2, instructions=2, faults=False)
    return Run(folder, light_configuration())

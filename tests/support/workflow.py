"""A small run of the real workflow, for tests that look at what reruns and what does not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import warm
import yaml

from bettersynth.core.commands import CONFIG_FILE

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "resources" / "miniature" / "models"

CONFIGURATION: dict[str, Any] = {
    "pool": {
        "files": [
            {"name": "stage_1", "path": "data/mgm_pretrain_stage_1.jsonl", "shards": 3},
            {"name": "stage_2", "path": "data/mgm_pretrain_stage_2.jsonl", "shards": 1},
        ],
        "images": "data",
        "max_quarantined": 0.5,  # a small pool has as many faults as a large one
        "restore": ["data/stage_1.json", "data/stage_2.json"],
    },
    "models": {name: {"path": str(MODELS / name)} for name in ("clip", "blip2", "convnext", "gemma")},
    "operators": {
        "similarity": {"op": "image_text_similarity_filter", "model": "clip"},
        "words_num": {"op": "words_num_filter"},
    },
    "captioners": {"blip2": {"model": "blip2", "max_new_tokens": 12}},
    "datasets": {
        "wordy": {"from": "pool", "filter": {"words_num": {"min": 6}}},
        "weak": {"from": "wordy", "rank": {"by": "similarity", "fraction": 0.1, "descending": False}},
        "rewritten": {"from": "weak", "recaption": {"captioner": "blip2", "seed": 0}},
        "better": {"from": "rewritten", "filter": {"similarity": {"min": -1}}},
        "spliced": {"from": "wordy", "splice": "better"},
        "best": {"from": "spliced", "repeat": 2},
    },
    "analyses": {"quartiles": {"dataset": "better", "operators": ["similarity", "words_num"]}},
    "trainset": {"cap": 64},
    "training": {
        "architecture": {
            "language_model": "gemma",
            "vision_tower": "clip",
            "vision_tower_aux": "convnext",
            "image_size_aux": 96,
        },
        "pretrain": {
            "global_batch": 16,
            "device_batch": 16,
            "max_length": 256,
            "precision": "fp32",
            "gradient_checkpointing": False,
            "workers": 0,
        },
        "finetune": {
            "global_batch": 16,
            "device_batch": 16,
            "max_length": 256,
            "precision": "fp32",
            "gradient_checkpointing": False,
            "workers": 0,
            "instructions": "data/finetune/mgm_instruction_stage_1.json",
            "images": "data/finetune",
        },
    },
    "evaluation": {
        "textvqa": {
            "questions": "data/textvqa/llava_textvqa_val_v051_ocr.jsonl",
            "annotations": "data/textvqa/TextVQA_0.5.1_val.json",
            "images": "data/textvqa/train_images",
            "max_new_tokens": 4,
        },
        "mmbench": {"questions": "data/mmbench/mmbench_dev_20230712.tsv", "max_new_tokens": 2},
        "precision": "fp32",
    },
    "recipes": {
        "unfiltered": {"dataset": "pool", "seeds": [1]},
        "best": {"dataset": "best", "seeds": [1, 2], "training": {"probe": {"steps": 2, "keep": 1}}},
    },
    "exports": {"best": ["data_juicer", "llava", "parquet", "webdataset"]},
    "report": {"truth": "data/truth.parquet"},
}


CHECKOUT = ("Makefile", "Snakefile", "rules", "scripts", "profiles", "envs", "resources", "miniature", ".venv")
"""What a folder needs for the Makefile's commands."""


def link_checkout(folder: Path) -> None:
    """Make a folder look like the repository, but for its data, models and results."""
    for name in CHECKOUT:
        (folder / name).symlink_to(ROOT / name)


def typed(folder: Path, command: str, environment: Mapping[str, str] = os.environ) -> subprocess.CompletedProcess[str]:
    """What comes of a line that a person types there."""
    plain = {name: value for name, value in environment.items() if name not in (CONFIG_FILE, "PYTHONPATH")}
    return subprocess.run(["bash", "-c", command], cwd=folder, env=plain, capture_output=True, text=True, check=False)


class Run:
    """A working directory in which the project's Snakefile runs, with further Python `paths` (of plugins)."""

    def __init__(self, folder: Path, configuration: dict[str, Any], paths: Sequence[Path] = ()) -> None:
        self.folder = folder
        self.paths = paths
        self.configure(configuration)

    @property
    def results(self) -> Path:
        """The run's results."""
        return self.folder / "results" / "small"

    def configure(self, configuration: dict[str, Any]) -> None:
        """Write the configuration file."""
        self.configuration = configuration
        (self.folder / "small.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False))

    def copy(self, folder: Path) -> Run:
        """The same run at another place, times of files kept."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Run(folder, self.configuration, self.paths)

    def snakemake(
        self, *arguments: str, check: bool = True, paths: Sequence[Path] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Call Snakemake, with further Python `paths`; its output is in the result."""
        options = ["--snakefile", ROOT / "Snakefile", "--directory", self.folder]
        options += ["--workflow-profile", ROOT / "profiles" / "default", "--latency-wait", "5"]
        options += ["--configfile", self.folder / "small.yaml", "--cores", "2"]
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        scripts = ROOT / "scripts"  # as in the Makefile
        environment["PYTHONPATH"] = os.pathsep.join(map(str, [scripts, *self.paths, *paths]))
        result = warm.snakemake(*options, *arguments, folder=ROOT, environment=environment)
        if check and result.returncode:
            raise AssertionError(f"snakemake {' '.join(arguments)} failed:\n{result.stdout}\n{result.stderr}")
        return result

    def would_run(self, *targets: str) -> dict[str, int]:
        """Jobs that a dry run announces, by rule, targets left out."""
        output = self.snakemake("--dry-run", *targets).stdout
        counts = dict(re.findall(r"^(\w+)\s+(\d+)$", output, re.MULTILINE))
        targets_only = {"all", "total", "pool", "scores", "datasets", "trainsets", "exports", "analyses"}
        return {
            rule: int(count)
            for rule, count in counts.items()
            if rule not in targets_only and not rule.startswith("recipe_")
        }

    def announced(self, *targets: str) -> str:
        """Everything that a dry run prints."""
        return self.snakemake("--dry-run", *targets).stdout

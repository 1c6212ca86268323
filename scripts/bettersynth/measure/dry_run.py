"""Time and memory of a dry run of every recipe of a configuration, from placeholders in the place of its inputs."""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bettersynth.configuration import load
from bettersynth.configuration.load import recipe_training
from bettersynth.configuration.types import Configuration
from bettersynth.measure import ROOT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--config", type=Path, default=ROOT / "config" / "contest.yaml", help="(default: %(default)s)")


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Dry-run every recipe, all in one call of Snakemake, twice: with and without the raw files' digests at hand."""
    configuration = load(options.config)
    with tempfile.TemporaryDirectory() as folder:
        place_inputs(configuration, Path(folder))
        output, first, megabytes = dry_run(options.config, configuration, Path(folder))
        _, second, _ = dry_run(options.config, configuration, Path(folder))
    return {
        "recipes": len(configuration.recipes),
        "datasets": len(configuration.datasets),
        "shards": sum(file.shards for file in configuration.pool.files),
        "jobs": _jobs(output),
        "first_seconds": round(first, 2),
        "second_seconds": round(second, 2),
        "peak_mb": round(megabytes),
    }


def place_inputs(configuration: Configuration, folder: Path) -> None:
    """Write an empty file, or make an empty folder, for every relative path that the configuration names below."""
    pool = configuration.pool
    for path in [pool.images, *(model.path for model in configuration.models.values())]:
        (folder / path).mkdir(parents=True, exist_ok=True)
    for path in [*(file.path for file in pool.files), *pool.restore, *_other_files(configuration)]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


def _other_files(configuration: Configuration) -> Iterator[str]:
    for recipe in configuration.recipes:
        yield recipe_training(configuration, recipe).finetune.instructions
    if evaluation := configuration.evaluation:
        yield from (evaluation.textvqa.questions, evaluation.textvqa.annotations, evaluation.mmbench.questions)
    if configuration.report.truth:
        yield configuration.report.truth


def dry_run(config: Path, configuration: Configuration, folder: Path) -> tuple[str, float, float]:
    """What `snakemake -n` prints about every recipe, its seconds, and the most memory in MB it ever had."""
    targets = ["all", *(f"recipe_{recipe}" for recipe in configuration.recipes)]
    paths = {"snakefile": ROOT / "Snakefile", "workflow-profile": ROOT / "profiles" / "default"}
    paths |= {"directory": folder, "configfile": config.resolve()}
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "rules", "--cores", "2"]
    command += [f"--{option}={path}" for option, path in paths.items()] + ["--", *targets]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    started = time.monotonic()
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    seconds = time.monotonic() - started
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stdout}{result.stderr}")
    # Linux counts in KiB and keeps the largest of all children.
    return result.stdout + result.stderr, seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000


def _jobs(output: str) -> int:
    (total, *_) = [line.split()[1] for line in output.splitlines() if line.startswith("total ")]
    return int(total)

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
from typing import NamedTuple

from bench import ROOT
from bettersynth.configuration import load
from bettersynth.configuration.recipes import recipe_training
from bettersynth.configuration.types import Configuration
from bettersynth.workflow.roots import roots_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--config", type=Path, default=ROOT / "config" / "contest.yaml", help="(default: %(default)s)")


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Dry-run every recipe, all in one call of Snakemake, twice: with and without the raw files' digests at hand.

    CPU seconds are told too: on a machine with other work they are what the seconds would be without it.
    """
    configuration = load(options.config)
    with tempfile.TemporaryDirectory() as folder:
        place_inputs(configuration, Path(folder))
        first = dry_run(options.config, configuration, Path(folder))
        second = dry_run(options.config, configuration, Path(folder))
    return {
        "recipes": len(configuration.recipes),
        "datasets": len(configuration.datasets),
        "shards": sum(file.shards for file in configuration.pool.files),
        "jobs": _jobs(first.output),
        "first_seconds": round(first.seconds, 2),
        "first_cpu_seconds": round(first.cpu_seconds, 2),
        "second_seconds": round(second.seconds, 2),
        "second_cpu_seconds": round(second.cpu_seconds, 2),
        "peak_mb": round(first.peak_mb),
    }


def place_inputs(configuration: Configuration, folder: Path) -> None:
    """Write an empty file, or make an empty folder, for every relative path that the configuration names below."""
    pool = configuration.pool
    for path in [*roots_of(pool).places, *(model.path for model in configuration.models.values())]:
        (folder / path).mkdir(parents=True, exist_ok=True)
    for path in [*(file.path for file in pool.files), *pool.restore, *_other_files(configuration)]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


def _other_files(configuration: Configuration) -> Iterator[str]:
    for recipe in configuration.recipes:
        yield recipe_training(configuration, recipe).finetune.instructions
    for benchmark in configuration.benchmarks.values():
        yield from benchmark.files
    if configuration.report.truth:
        yield configuration.report.truth


class Call(NamedTuple):
    """A call of Snakemake: what it printed, its seconds and CPU seconds, and the most memory, in MB, that it had."""

    output: str
    seconds: float
    cpu_seconds: float
    peak_mb: float


def dry_run(config: Path, configuration: Configuration, folder: Path) -> Call:
    """Run `snakemake -n` on every recipe."""
    targets = ["all", *(f"recipe_{recipe}" for recipe in configuration.recipes)]
    return call_snakemake(config, folder, "--dry-run", "--quiet", "rules", "--", *targets)


def call_snakemake(config: Path, folder: Path, *arguments: str) -> Call:
    """Run Snakemake on two cores. The memory is that of the largest child process of this one so far."""
    paths = {"snakefile": ROOT / "Snakefile", "workflow-profile": ROOT / "profiles" / "default"}
    paths |= {"directory": folder, "configfile": config.resolve()}
    options = [f"--{option}={path}" for option, path in paths.items()]
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *options, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    before, started = _cpu_seconds(), time.monotonic()
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    seconds = time.monotonic() - started
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stdout}{result.stderr}")
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6  # Linux counts in KiB
    return Call(result.stdout + result.stderr, seconds, _cpu_seconds() - before, peak_mb)


def _cpu_seconds() -> float:
    """CPU seconds of all child processes so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _jobs(output: str) -> int:
    (total, *_) = [line.split()[1] for line in output.splitlines() if line.startswith("total ")]
    return int(total)

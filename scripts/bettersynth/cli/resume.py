"""Go on with a run that was cut off: wait for its jobs, or cancel them, unlock, and run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from bettersynth.cli.options import config
from bettersynth.core.commands import make
from bettersynth.runtime import driver
from bettersynth.workflow.run import Run

SNAKEMAKE = [sys.executable, "-m", "snakemake"]
"""However the run before was called: what stood in its first word may be a module of Snakemake's."""


@click.command(help=__doc__)
@config
@click.option("--cancel", is_flag=True, help="cancel the jobs that are still queued or running")
def command(config_file: Path, cancel: bool) -> None:
    """Become the Snakemake that was cut off, once no job of it is left."""
    lease = driver.of_configuration(config_file) or Run.open(config_file).layout.driver
    lease = lease.absolute()
    before = driver.cut_off(lease)
    if before is None:
        sys.exit(f"No run of {config_file} was cut off here. To run it: make run CONFIG={config_file}")
    log = Path(before["log"])
    if cancel and (jobs := driver.left(lease, log)):
        print(f"Cancelling jobs of the run before: {driver.named(jobs)}", flush=True)
        driver.cancel(lease, log)
    for jobs in driver.until_gone(lease, log):
        hint = "" if cancel else f"; {driver.make('resume', before)} CANCEL=1 cancels them"
        print(f"Waiting for jobs of the run before: {driver.named(jobs)}{hint}", flush=True)
    known = "command" in before
    _, *rest = before["command"] if known else ["", "--configfile", str(config_file), "--cores", "1"]
    os.chdir(before["folder"])
    print("Taking its lock away", *(["and going on: snakemake", *rest] if known else []), flush=True)
    unlocked = subprocess.run([*SNAKEMAKE, "--unlock", *rest], capture_output=True, text=True)
    if unlocked.returncode:
        sys.exit(unlocked.stdout + unlocked.stderr)
    lease.unlink(missing_ok=True)  # nothing is left of that run
    if not known:
        again = make("run", config=config_file)
        sys.exit(f"How it was called was lost with {lease}. Go on as you called it, such as: {again}")
    os.execv(sys.executable, [*SNAKEMAKE, *rest])

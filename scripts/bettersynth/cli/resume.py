"""Go on with a run that was cut off: wait for its jobs, or cancel them, unlock, and run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from bettersynth.cli.options import config
from bettersynth.runtime import driver
from bettersynth.workflow.run import Run


@click.command(help=__doc__)
@config
@click.option("--cancel", is_flag=True, help="cancel the jobs that are still queued or running")
def command(config_file: Path, cancel: bool) -> None:
    """Become the Snakemake that was cut off, once no job of it is left."""
    lease = Run.open(config_file).layout.driver.absolute()
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
    _go_on(before, lease)


def _go_on(before: dict[str, object], lease: Path) -> None:
    """Take the lock of the run before away and become the same command."""
    program, *rest = map(str, before["command"])  # type: ignore[call-overload]
    snakemake = [sys.executable, program]
    print("Taking its lock away and going on:", program, *rest, flush=True)
    os.chdir(str(before["folder"]))
    unlocked = subprocess.run([*snakemake, "--unlock", *rest], capture_output=True, text=True)
    if unlocked.returncode:
        sys.exit(unlocked.stdout + unlocked.stderr)
    lease.unlink(missing_ok=True)  # nothing is left of that run
    os.execv(sys.executable, [*snakemake, *rest])

"""Go on with a run that was cut off (`make resume`): wait for its jobs, or cancel them, then call Snakemake again."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from bettersynth.configuration import ConfigurationError, load
from bettersynth.core.layout import Layout
from bettersynth.runtime import driver
from bettersynth.slurm.queue import SlurmError

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--config", default="config/miniature.yaml")
parser.add_argument("--cancel", action="store_true", help="cancel the jobs that are still queued or running")
arguments = parser.parse_args()

try:
    configuration = load(arguments.config)
    lease = Layout(Path("results") / str(configuration.name)).driver.absolute()
    before = driver.cut_off(lease)
    if before is None:
        sys.exit(f"No run of {arguments.config} was cut off here. To run it: make run CONFIG={arguments.config}")
    log = Path(before["log"])
    if arguments.cancel and (jobs := driver.left(lease, log)):
        print(f"Cancelling jobs of the run before: {driver.named(jobs)}", flush=True)
        driver.cancel(lease, log)
    for jobs in driver.until_gone(lease, log):
        hint = "" if arguments.cancel else f"; {driver.make('resume', before)} CANCEL=1 cancels them"
        print(f"Waiting for jobs of the run before: {driver.named(jobs)}{hint}", flush=True)
except (ConfigurationError, driver.DriverError, SlurmError) as error:
    sys.exit(str(error))

program, *rest = before["command"]
snakemake = [sys.executable, program]
print("Taking its lock away and going on:", *before["command"], flush=True)
os.chdir(before["folder"])
unlocked = subprocess.run([*snakemake, "--unlock", *rest], capture_output=True, text=True)
if unlocked.returncode:
    sys.exit(unlocked.stdout + unlocked.stderr)
lease.unlink(missing_ok=True)  # nothing is left of that run
os.execv(sys.executable, [*snakemake, *rest])

"""Go on with a run that was cut off (`make resume`): wait for its jobs, or cancel them, then call Snakemake again."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from bettersynth.configuration import ConfigurationError, load
from bettersynth.driver import DriverError, cut_off
from bettersynth.layout import Layout
from bettersynth.slurm import queue

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--config", default="config/miniature.yaml")
parser.add_argument("--cancel", action="store_true", help="cancel the jobs that are still queued or running")
arguments = parser.parse_args()

try:
    configuration = load(arguments.config)
    before = cut_off(Layout(Path("results") / str(configuration.name)).driver)
    if before is None:
        sys.exit(f"No run of {arguments.config} was cut off here. To run it: make run CONFIG={arguments.config}")
    log = Path(before["log"])
    if arguments.cancel and (jobs := queue.queued(log)):
        print(f"Cancelling {len(jobs)} jobs of the run before.", flush=True)
        queue.cancel(jobs)
    for jobs in queue.until_gone(log):
        print(f"Waiting for {len(jobs)} jobs of the run before; make resume CANCEL=1 cancels them.", flush=True)
except (ConfigurationError, DriverError, queue.SlurmError) as error:
    sys.exit(str(error))

program, *rest = before["command"]
snakemake = [sys.executable, program]
print("Taking its lock away and going on:", *before["command"], flush=True)
os.chdir(before["folder"])
subprocess.run([*snakemake, "--unlock", *rest], check=True)
os.execv(sys.executable, [*snakemake, *rest])

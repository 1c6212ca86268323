"""A job that notes each of its starts and, the first time, does what its name says."""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from bettersynth.core.publish import publish
from bettersynth.runtime.job import RunningJob

job = RunningJob(snakemake)
name = job.wildcards.name
starts = job.layout.root / "starts" / name
starts.parent.mkdir(parents=True, exist_ok=True)
with starts.open("a") as file:
    file.write(f"{os.environ['SLURM_JOB_ID']} {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")

first = len(starts.read_text().splitlines()) == 1
if first and name in ("cancelled", "slow", "lost"):
    time.sleep(600)
if first and name == "hungry":
    memory = bytearray(2_000_000_000)
    time.sleep(60)
release = Path("release")
while name.startswith("patient") and not release.exists():
    time.sleep(0.2)
with publish(job.output[0]) as temporary:
    temporary.write_text(f"{name}\n")

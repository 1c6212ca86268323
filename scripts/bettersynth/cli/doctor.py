"""Look at the cluster and say what to change in the profile (`make doctor`)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bettersynth.configuration import ConfigurationError, load
from bettersynth.slurm.doctor import examine

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--config", default="config/miniature.yaml")
arguments = parser.parse_args()

try:
    shards_per_job = load(arguments.config).scoring.shards_per_job
except ConfigurationError as error:
    sys.exit(str(error))
findings = []
for finding in examine(Path.cwd(), shards_per_job):
    print(finding, flush=True)
    findings.append(finding)
sys.exit(0 if all(finding.ok for finding in findings) else 1)

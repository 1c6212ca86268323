"""Say how far the run of a configuration is (`make status`)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bettersynth.configuration import ConfigurationError, load
from bettersynth.core.layout import Layout
from bettersynth.inspect.status import describe
from bettersynth.slurm.queue import SlurmError

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--config", default="config/miniature.yaml")
arguments = parser.parse_args()

try:
    configuration = load(arguments.config)
    print(describe(configuration, Layout(Path("results") / str(configuration.name))))
except (ConfigurationError, SlurmError) as error:
    sys.exit(str(error))

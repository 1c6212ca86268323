"""Check what was staged for a configuration, file by file and without a network (`make verify`)."""

from __future__ import annotations

import argparse
import sys
import time

from bettersynth.configuration import ConfigurationError, load
from bettersynth.configuration.load import check_recipe
from bettersynth.workflow.manifest import check_everything, manifest_path

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--config", default="config/miniature.yaml")
parser.add_argument("--recipe", help="only what this recipe needs")
arguments = parser.parse_args()

started = time.monotonic()
try:
    configuration = load(arguments.config)
    recipe = check_recipe(configuration, arguments.recipe)
except ConfigurationError as error:
    sys.exit(str(error))
what = f"recipe {recipe} of {arguments.config}" if recipe else arguments.config
problems = list(check_everything(configuration, arguments.config, recipe))
for problem in problems:
    print(problem)
if problems:
    sys.exit(f"verify: {len(problems)} of the files that {what} needs are not as they should be")
listed = (
    f"as {manifest_path(configuration)} lists it"
    if manifest_path(configuration).exists()
    else (f"whole, as far as it tells by itself; `make stage CONFIG={arguments.config}` lists it for comparison")
)
print(f"everything that {what} needs is there, {listed} ({time.monotonic() - started:.1f} s)")

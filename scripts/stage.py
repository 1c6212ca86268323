"""Fetch everything a configuration needs, with a manifest (`make stage`); what is staged already is left alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bettersynth import stage
from bettersynth.configuration import ConfigurationError, load
from bettersynth.configuration.load import check_recipe
from bettersynth.manifest import manifest_path
from bettersynth.staging import StagingError

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--config", default="config/miniature.yaml")
parser.add_argument("--recipe", help="only what this recipe needs")
parser.add_argument("--from", dest="copies", type=Path, metavar="FOLDER", help="take models from here where they are")
parser.add_argument("--dry-run", action="store_true", help="say what would be fetched, and how much")
parser.add_argument("--wheels", choices=["cpu", "cuda"], help="wheels too, with this build of torch")
parser.add_argument("--python", metavar="3.11", help="Python that the wheels are for (default: this one)")
parser.add_argument("--platform", nargs="*", default=[], metavar="TAG", help="machine they are for (default: this)")
arguments = parser.parse_args()

wheels = stage.Wheels(arguments.wheels, arguments.python, tuple(arguments.platform)) if arguments.wheels else None
try:
    configuration = load(arguments.config)
    recipe = check_recipe(configuration, arguments.recipe)
    steps = stage.plan(configuration, arguments.copies, recipe)
    print("\n".join(map(str, steps)), flush=True)
    print(f"to fetch or copy: {sum(step.size for step in steps) / 1e9:,.2f} GB", flush=True)
    if wheels:
        print(f"and wheels, about {stage.WHEEL_BYTES[wheels.torch] / 1e9:,.0f} GB if none is there", flush=True)
    stage.require_space(steps, wheels)
    if arguments.dry_run:
        sys.exit()
    stage.stage_models(configuration, steps)
    stage.stage_resources(configuration, recipe)
    if wheels:
        stage.stage_wheels(configuration, wheels)
    missing = stage.stage_data(configuration)
except (ConfigurationError, StagingError) as error:
    sys.exit(f"stage: {error}")
print(f"staged: {manifest_path(configuration)} lists every file; check it anywhere: make verify")
if missing:
    sys.exit("stage: data files that nothing fetches are not there: " + ", ".join(missing))

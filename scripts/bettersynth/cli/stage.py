"""Fetch everything a configuration needs, with a manifest (`make stage`); what is staged already is left alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bettersynth.configuration import ConfigurationError, load
from bettersynth.configuration.load import check_recipe
from bettersynth.core.resources import StagingError
from bettersynth.deploy import fetch as stage
from bettersynth.deploy import hub
from bettersynth.workflow.manifest import manifest_path

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--config", type=Path, default=Path("config/miniature.yaml"))
parser.add_argument("--recipe", help="only what this recipe needs")
parser.add_argument("--from", dest="copies", type=Path, metavar="FOLDER", help="take models from here where they are")
parser.add_argument("--pin", action="store_true", help="write the newest commit of models that name none into the file")
parser.add_argument("--dry-run", action="store_true", help="say what would be fetched, and how much")
parser.add_argument("--wheels", choices=["cpu", "cuda"], help="wheels too, with this build of torch")
parser.add_argument(
    "--python-version", default=stage.THIS_PYTHON, metavar="3.12.4", help="Python they are for (default: %(default)s)"
)
parser.add_argument("--torch-index", help="package index to take torch from")
parser.add_argument("--platform", nargs="*", default=[], metavar="TAG", help="machine they are for (default: this)")
arguments = parser.parse_args()

if arguments.copies and not arguments.copies.is_dir():
    sys.exit(f"stage: {arguments.copies}: no such folder; FROM is where local copies of models are")
wheels = None
if arguments.wheels:
    wheels = stage.Wheels(arguments.wheels, arguments.python_version, tuple(arguments.platform))
to_build: list[str] = []
try:
    configuration = load(arguments.config)
    recipe = check_recipe(configuration, arguments.recipe)
    steps = stage.plan(configuration, arguments.copies, recipe, newest=arguments.dry_run or arguments.pin)
    if arguments.pin and not arguments.dry_run:
        for name, commit in stage.pin(arguments.config, steps, configuration).items():
            print(f"{arguments.config}: models.{name}: revision: {commit}", flush=True)
        configuration = load(arguments.config)
    for step in steps:
        pinned = step.is_pinned(configuration.models[step.name])
        print(step if pinned else f"{step}, and the configuration names no commit: PIN=1", flush=True)
    print(f"to fetch or copy: {sum(step.size for step in steps) / 1e9:,.2f} GB", flush=True)
    if wheels and stage.wheels_are_staged(configuration, wheels):
        print(f"wheels: staged ({wheels.folder})", flush=True)
        wheels = None
    if wheels:
        size = stage.WHEEL_BYTES[wheels.torch] / 1e9
        print(f"wheels: to fetch, about {size:,.0f} GB if none is there ({wheels.folder})", flush=True)
    stage.require_space(steps, wheels)
    if arguments.dry_run:
        sys.exit()
    stage.stage_models(configuration, steps)
    stage.stage_resources(configuration, recipe)
    if wheels:
        to_build = stage.stage_wheels(configuration, wheels, arguments.torch_index)
    missing = stage.stage_data(configuration)
except hub.UnreachableError as error:
    print("\n".join(stage.known(configuration, recipe)))
    sys.exit(f"stage: {error}")
except (ConfigurationError, StagingError) as error:
    sys.exit(f"stage: {error}")
print(f"staged: {manifest_path(configuration)} lists every file; check it anywhere: make verify")
if to_build:
    print(
        f"no wheels of {', '.join(to_build)} for that machine: `make setup OFFLINE=1` builds them there, by a compiler"
    )
if missing:
    sys.exit("stage: data files that nothing fetches are not there: " + ", ".join(missing))

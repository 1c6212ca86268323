"""Fetch everything that a configuration needs, with a manifest; what is staged already is left alone."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bettersynth.cli.options import FILE, config, recipe
from bettersynth.configuration import Configuration, load
from bettersynth.configuration.load import check_recipe
from bettersynth.core.commands import make
from bettersynth.core.resources import StagingError
from bettersynth.deploy import fetch, hub
from bettersynth.workflow.manifest import manifest_path


@click.command(help=__doc__)
@config
@recipe("only what this recipe needs")
@click.option("--from", "copies", type=FILE, metavar="FOLDER", help="take models from here where they are")
@click.option("--pin", is_flag=True, help="write the newest commit of models that name none into the file")
@click.option("--dry-run", is_flag=True, help="say what would be fetched, and how much")
@click.option("--wheels", "torch", type=click.Choice(["cpu", "cuda"]), help="wheels too, with this build of torch")
@click.option("--python-version", default=fetch.THIS_PYTHON, metavar="3.12.4", show_default=True, help="of the wheels")
@click.option("--torch-index", help="package index to take torch from")
@click.option("--platform", multiple=True, metavar="TAG", help="machine the wheels are for (default: this one)")
def command(
    config_file: Path,
    recipe: str | None,
    copies: Path | None,
    pin: bool,
    dry_run: bool,
    torch: str | None,
    python_version: str,
    torch_index: str | None,
    platform: tuple[str, ...],
) -> None:
    """Fetch or copy models, word lists and wheels, and list every file of them."""
    if copies and not copies.is_dir():
        sys.exit(f"stage: {copies}: no such folder; FROM is where local copies of models are")
    wheels = fetch.Wheels(torch, python_version, platform) if torch else None
    configuration = load(config_file)
    recipe = check_recipe(configuration, recipe)
    try:
        steps = fetch.plan(configuration, copies, recipe, newest=dry_run or pin)
        if pin and not dry_run:
            for name, commit in fetch.pin(config_file, steps, configuration).items():
                print(f"{config_file}: models.{name}: revision: {commit}", flush=True)
            configuration = load(config_file)
        wheels = _announce(configuration, steps, wheels)
        fetch.require_space(steps, wheels)
        if not dry_run:
            _stage(configuration, steps, recipe, wheels, torch_index)
    except hub.UnreachableError as error:
        print("\n".join(fetch.known(configuration, recipe)))
        raise StagingError(f"stage: {error}") from None


def _announce(
    configuration: Configuration, steps: list[fetch.Step], wheels: fetch.Wheels | None
) -> fetch.Wheels | None:
    """Say what is to be fetched; return the wheels that are."""
    for step in steps:
        pinned = step.is_pinned(configuration.models[step.name])
        print(step if pinned else f"{step}, and the configuration names no commit: PIN=1", flush=True)
    print(f"to fetch or copy: {sum(step.size for step in steps) / 1e9:,.2f} GB", flush=True)
    if wheels and fetch.wheels_are_staged(configuration, wheels):
        print(f"wheels: staged ({wheels.folder})", flush=True)
        return None
    if wheels:
        size = fetch.WHEEL_BYTES[wheels.torch] / 1e9
        print(f"wheels: to fetch, about {size:,.0f} GB if none is there ({wheels.folder})", flush=True)
    return wheels


def _stage(
    configuration: Configuration,
    steps: list[fetch.Step],
    recipe: str | None,
    wheels: fetch.Wheels | None,
    torch_index: str | None,
) -> None:
    """Fetch it all; exit status 1 when data files are missing that nothing fetches."""
    fetch.stage_models(configuration, steps)
    fetch.stage_resources(configuration, recipe)
    to_build = fetch.stage_wheels(configuration, wheels, torch_index) if wheels else []
    missing = fetch.stage_data(configuration)
    print(f"staged: {manifest_path(configuration)} lists every file; check it anywhere: {make('verify')}")
    if to_build:
        packages = ", ".join(to_build)
        print(f"no wheels of {packages} for that machine: `make setup OFFLINE=1` builds them there, by a compiler")
    if missing:
        sys.exit("stage: data files that nothing fetches are not there: " + ", ".join(missing))

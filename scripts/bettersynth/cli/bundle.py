"""Pack what the next jobs of a recipe need on another machine, or the results to take home."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from bettersynth.cli.options import FILE, config, recipe
from bettersynth.configuration.load import check_recipe
from bettersynth.deploy.archive import pack
from bettersynth.deploy.relay import Bundle, Relay, part_of
from bettersynth.workflow.run import Run

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


class Size(click.ParamType):
    """Bytes: `4G`, `700M`."""

    name = "4G"

    def convert(self, value: str, parameter: click.Parameter | None, context: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+)([KMG]?)", value)
        return int(match[1]) * UNITS[match[2]] if match else self.fail(f"{value}: give a size such as 4G or 700M")


class Part(click.ParamType):
    """Number and count: `2/3`."""

    name = "1/3"

    def convert(self, value: str, parameter: click.Parameter | None, context: click.Context | None) -> tuple[int, int]:
        match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", value)
        if match is None or int(match[1]) > int(match[2]):
            self.fail(f"{value}: give a part such as 1/3")
        return int(match[1]), int(match[2])


@click.command(help=__doc__)
@config
@click.option("--to", type=FILE, required=True, metavar="FILE.tar.zst")
@recipe("what to bundle for (default: everything)")
@click.option("--until", metavar="RULE", help="only as far as this rule, such as score_neural or finetune")
@click.option("--part", type=Part(), help="one of so many equal parts of the jobs, for one machine")
@click.option("--models", is_flag=True, help="models by value, not by reference")
@click.option("--results", is_flag=True, help="what was finished here, to take home")
@click.option("--split", type=Size(), help="largest part of the archive")
def command(
    config_file: Path,
    to: Path,
    recipe: str | None,
    until: str | None,
    part: tuple[int, int] | None,
    models: bool,
    results: bool,
    split: int | None,
) -> None:
    """Write the bundle and print what to type where it is opened."""
    configuration = Run.open(config_file).configuration
    recipe = check_recipe(configuration, recipe)
    relay = Relay(configuration, config_file)
    bundle = relay.results() if results else _work(relay, recipe, until, part, models)
    if not bundle.files:
        sys.exit("bundle: nothing was finished here that did not come here in a bundle")
    parts = pack(to, bundle.files, bundle.facts, split)
    total = sum(path.stat().st_size for path in parts)
    click.echo(f"{len(bundle.files):,} files, {total / 1e6:,.1f} MB: {', '.join(map(str, parts))}")
    for path in bundle.facts.get("elsewhere", []):
        click.echo(f"not in it, must be on the other machine: {path}")
    if bundle.facts.get("elsewhere") and not models:
        click.echo("MODELS=1 packs the models too")
    click.echo(f"there: make {'merge' if results else 'unbundle'} FROM={to.name}")


def _work(relay: Relay, recipe: str | None, until: str | None, part: tuple[int, int] | None, models: bool) -> Bundle:
    """What the jobs that are due need, or those of one part of them."""
    jobs = relay.due([f"recipe_{recipe}" if recipe else "all"], until)
    if part:
        jobs = part_of(jobs, *part)
    if not jobs:
        sys.exit("bundle: nothing is left to run")
    return relay.work(jobs, models=models, recipe=recipe)

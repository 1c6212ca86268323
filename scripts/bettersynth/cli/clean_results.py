"""Delete the results of a configuration, its logs and benchmarks, after asking."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from bettersynth.cli.options import config
from bettersynth.core.layout import Layout
from bettersynth.runtime import driver
from bettersynth.workflow.run import Run


@click.command(help=__doc__)
@config
@click.option("--yes", is_flag=True, help="without asking")
def command(config_file: Path, yes: bool) -> None:
    """Name what would be removed, ask, and remove it; nothing while a run is on, or of another configuration."""
    layout = Run.open(config_file).layout
    folders = [folder for folder in (layout.root, layout.logs, layout.benchmarks) if folder.exists()]
    if not folders:
        sys.exit(f"There are no results of {config_file}: no {layout.root}")
    _refuse(layout, config_file)
    for folder in folders:
        click.echo(f"{folder}: {_size(folder)}")
    if not (yes or (sys.stdin.isatty() and click.confirm("Delete all of it?"))):
        sys.exit("Nothing was deleted; YES=1 deletes without asking.")
    for folder in folders:
        shutil.rmtree(folder)


def _refuse(layout: Layout, config_file: Path) -> None:
    """Exit where it is not clear that these results are nobody's but this configuration's, and at rest."""
    for folder in (layout.root, layout.logs, layout.benchmarks):
        if folder.is_symlink():
            sys.exit(f"{folder} is a link to {folder.readlink()}: nothing was deleted; remove that folder by hand")
    before = driver.owner(layout.claim, config_file)
    if before.exists() and not before.samefile(config_file):
        sys.exit(f"{layout.root} holds the results of {before}, not of {config_file}: nothing was deleted")
    refuse_unless_at_rest(layout)


def refuse_unless_at_rest(layout: Layout) -> None:
    """Exit while a run is on, or jobs of one that was cut off."""
    left = driver.cut_off(layout.driver)  # raises while a run is on
    if jobs := driver.left(layout.driver, Path(left["log"] if left else os.devnull)):
        sys.exit(f"Jobs are still queued or running: {driver.named(jobs)}. Nothing was deleted.")


def _size(folder: Path) -> str:
    """How many files there are, and their bytes; no link is followed."""
    sizes = [Path(parent, name).lstat().st_size for parent, _, names in os.walk(folder) for name in names]
    return f"{len(sizes):,} files, {sum(sizes) / 1e6:,.1f} MB"

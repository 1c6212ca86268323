"""List by size what no configuration in config/ needs any more of the results, and remove it when told to."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path

import click

from bettersynth.cli.clean_results import refuse_unless_at_rest
from bettersynth.cli.options import config
from bettersynth.core.layout import Layout
from bettersynth.runtime import driver
from bettersynth.workflow.run import Run

SHOWN = 30


@click.command(help=__doc__)
@config
@click.option("--yes", is_flag=True, help="remove it")
def command(config_file: Path, yes: bool) -> None:
    """Look at the results of the configurations in config/, and of the one that is named."""
    from bettersynth.inspect.unneeded import unneeded

    runs = [run for run in map(Run.open, _files(config_file)) if run.layout.root.exists()]
    found = unneeded(runs)
    for entry in found[:SHOWN]:
        click.echo(f"{entry.size / 1e6:10,.1f} MB  {entry.path}  ({entry.kind})")
    if len(found) > SHOWN:
        click.echo(f"… and {len(found) - SHOWN} more")
    for kind, size in _by_kind(found).most_common():
        click.echo(f"{size / 1e6:10,.1f} MB in all: {kind}")
    if not found:
        click.echo(f"Every file in results/ of {len(runs)} configurations is in use.")
    elif not yes:
        click.echo("Nothing was removed; YES=1 removes what is listed. docs/disk.md says what each is.")
    else:
        for run in runs:
            refuse_unless_at_rest(run.layout)
        for path in (entry.path for entry in found):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        click.echo(f"Removed: {sum(entry.size for entry in found) / 1e6:,.1f} MB.")


def _files(config_file: Path) -> list[Path]:
    """The configurations of config/, the one that is named, and those that results say they are of."""
    claims = (Layout(folder).claim for folder in sorted(Path("results").glob("*")))
    owners = [driver.owner(claim, config_file) for claim in claims if claim.exists()]
    if gone := [owner for owner in owners if not owner.exists()]:
        sys.exit(f"{gone[0]} is gone, and results of it are here: bring it back, or delete them (make clean-results)")
    files = [*sorted(Path("config").glob("*.yaml")), config_file, *owners]
    return list({file.resolve(): file for file in files}.values())


def _by_kind(found: list) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for entry in found:
        sizes[entry.kind] += entry.size
    return sizes

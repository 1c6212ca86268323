"""Look at pairs and write a first configuration for them, with operators, an analysis, a filter and a recipe."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from bettersynth.cli.options import FILE
from bettersynth.configuration import load
from bettersynth.configuration.section import NAME_PATTERN
from bettersynth.core.commands import make
from bettersynth.core.errors import PersonError
from bettersynth.core.publish import publish
from bettersynth.inspect.holdings import look_into
from bettersynth.inspect.starter import starter

CONFIGURATIONS = Path("config")


@click.command(help=__doc__)
@click.argument("path")
@click.option("--name", metavar="NAME", help="of the configuration (default: after the path; asked for at a terminal)")
@click.option("--to", type=FILE, metavar="FILE", help="where it is written (default: config/NAME.yaml)")
@click.option("--images", multiple=True, metavar="PLACE", help="folder, zip or tar of the pictures beside a JSON")
@click.option("--caption", help="where captions are: an extension, json.KEY or a column (default: as found)")
@click.option("--image", help="where pictures are: an extension or a column (default: as found)")
@click.option("--id", "record_id", help="where ids are: key, hash, json.KEY or a column (default: as found)")
@click.option("--like", type=FILE, metavar="CONFIG", help="take models, training and evaluation over from this one")
def command(
    path: str,
    name: str | None,
    to: Path | None,
    images: tuple[str, ...],
    caption: str | None,
    image: str | None,
    record_id: str | None,
    like: Path | None,
) -> None:
    """Say what the path holds, and write the configuration; an existing file is left alone."""
    given = {"caption": caption, "image": image, "id": record_id}
    holdings = look_into(path, {key: value for key, value in given.items() if value}, list(images))
    click.echo("\n".join(holdings.lines()))
    name = name or _name_of(path)
    if not re.fullmatch(NAME_PATTERN, name):
        raise PersonError(f"NAME={name}: a name has small letters, digits and underscores")
    to = to or CONFIGURATIONS / f"{name}.yaml"
    if to.exists():
        raise PersonError(f"{to}: is there already; choose another NAME=…, or remove it")
    text = starter(name, holdings, to, like)
    with publish(to) as temporary:
        temporary.write_text(text, encoding="utf-8")
    load(to)
    click.echo(f"\nWritten: {to}\nNext: {make('dry-run', config=to)}\nThen: {make('run', config=to)}")


def _name_of(path: str) -> str:
    """After the last part of the path that says something; a person at a terminal may choose another."""
    parts = [part for part in Path(path).parts if not set(part) & set("*?{[")]
    found = re.sub(r"[^a-z0-9]+", "_", parts[-1].lower().partition(".")[0] if parts else "").strip("_") or "pairs"
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return found
    return str(click.prompt("Name of the configuration", default=found))

"""Turn a Data-Juicer recipe's list `process` into operators, datasets and a recipe, and say what has no counterpart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import yaml

from bettersynth.cli.options import FILE
from bettersynth.configuration import load
from bettersynth.configuration.reading import read_yaml
from bettersynth.configuration.section import NAME_PATTERN
from bettersynth.core.commands import make
from bettersynth.core.errors import PersonError
from bettersynth.core.publish import publish
from bettersynth.deploy.recipes_in import Imported, read_process


@click.command(help=__doc__)
@click.argument("process", type=FILE)
@click.option(
    "--like", type=FILE, required=True, metavar="CONFIG", help="configuration whose pool, models and training it gets"
)
@click.option("--name", metavar="NAME", help="of the new configuration (default: after the file)")
@click.option("--to", type=FILE, metavar="FILE", help="where it is written (default: config/NAME.yaml)")
def command(process: Path, like: Path, name: str | None, to: Path | None) -> None:
    """Write the configuration; an existing file is left alone."""
    name = name or re.sub(r"[^a-z0-9]+", "_", process.stem.lower()).strip("_")
    if not re.fullmatch(NAME_PATTERN, name):
        raise PersonError(f"NAME={name}: a name has small letters, digits and underscores")
    to = to or Path("config") / f"{name}.yaml"
    if to.exists():
        raise PersonError(f"{to}: is there already; choose another NAME=…, or remove it")
    known = read_yaml(like)
    imported = Imported(known)
    steps = read_process(process)
    for number, (op, arguments) in enumerate(steps, 1):
        imported.add(number, op, arguments)
    content = _content(known, imported)
    about = f"# The {len(steps)} steps of {process}, for the pool and the training of {like}.\n"
    about += "".join(f"# {note}\n" for note in imported.notes)
    with publish(to) as temporary:
        temporary.write_text(about + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120))
    load(to)
    click.echo(f"{to}: {len(imported.datasets)} datasets, the last of them `{imported.last}`, from {len(steps)} steps")
    for note in imported.notes:
        click.echo(f"  {note}")
    click.echo(f"Next: {make('dry-run', config=to)}")


def _content(known: dict[str, Any], imported: Imported) -> dict[str, Any]:
    """The pool and training of the configuration that is known, and what the steps became."""
    sections = imported.sections()
    kept = ("pool", "scoring", "trainset", "training", "evaluation")
    content = {key: known[key] for key in kept if key in known}
    training = known.get("training", {}).get("architecture", {}).values()
    models = {name: entry for name, entry in known.get("models", {}).items() if name in training}
    content |= {**sections, "models": {**models, **sections.get("models", {})}}
    if "training" in content and "evaluation" in content:
        content["recipes"] = {"imported": {"dataset": imported.last, "seeds": [1], "control": "random"}}
    return content

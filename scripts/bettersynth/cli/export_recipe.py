"""Write a dataset as a Data-Juicer recipe: the list `process` that keeps the same rows."""

from __future__ import annotations

from pathlib import Path

import click
import yaml

from bettersynth.cli.options import FILE, config
from bettersynth.configuration import load
from bettersynth.core.errors import PersonError
from bettersynth.core.publish import publish
from bettersynth.core.records import POOL
from bettersynth.deploy.recipes_out import process_of


@click.command(help=__doc__)
@config
@click.option("--dataset", required=True, metavar="NAME")
@click.option("--to", type=FILE, metavar="FILE", help="where it is written (default: NAME.process.yaml)")
def command(config_file: Path, dataset: str, to: Path | None) -> None:
    """Write the list, or say at which step Data-Juicer has none."""
    configuration = load(config_file)
    if dataset != POOL and dataset not in configuration.datasets:
        raise PersonError(f"DATASET={dataset}: there are {', '.join(configuration.datasets)}")
    steps = process_of(dataset, configuration)
    to = to or Path(f"{dataset}.process.yaml")
    if to.exists():
        raise PersonError(f"{to}: is there already; choose another TO=…, or remove it")
    settings = {
        "dataset_path": "the pool as JSON lines: a file of `pool.files`, or an export in the form data_juicer",
        "export_path": f"{dataset}.jsonl",
        "skip_op_error": False,
        "process": steps,
    }
    about = (
        f"# The rows of {dataset} of {config_file}. Lines that ingest quarantines are to be left out beforehand.\n"
        "# `skip_op_error: false`, or Data-Juicer would drop records whose step fails and say nothing.\n"
    )
    with publish(to) as temporary:
        temporary.write_text(about + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=120))
    click.echo(f"{to}: {len(steps)} steps. Set dataset_path in it, then: dj-process --config {to}")

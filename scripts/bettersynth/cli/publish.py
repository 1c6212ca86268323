"""Prepare a dataset, or a trained model, as a repository of the hub, with its card; upload it when told to."""

from __future__ import annotations

from pathlib import Path

import click

from bettersynth.cli.ask import find_model
from bettersynth.cli.options import config, recipe
from bettersynth.core.commands import make
from bettersynth.core.errors import PersonError
from bettersynth.core.records import POOL
from bettersynth.deploy.publishing import Prepared, prepare_dataset, prepare_model, upload
from bettersynth.workflow.run import Run


@click.command(help=__doc__)
@config
@click.option("--dataset", metavar="NAME", help="publish this dataset")
@recipe("publish this recipe's trained model")
@click.option("--seed", type=int, help="of the recipe (default: the first that has a model)")
@click.option("--no-images", is_flag=True, help="captions and paths alone")
@click.option("--to", "repository", metavar="OWNER/NAME", help="the repository")
@click.option("--upload", "uploads", is_flag=True, help="upload it; without this, nothing leaves the machine")
@click.option("--public", is_flag=True, help="a repository that is made is open to all (default: private)")
def command(
    config_file: Path,
    dataset: str | None,
    recipe: str | None,
    seed: int | None,
    no_images: bool,
    repository: str | None,
    uploads: bool,
    public: bool,
) -> None:
    """Prepare, say what would be uploaded, and upload that if told to."""
    if (dataset is None) == (recipe is None):
        raise PersonError(f"what is to be published? {make('publish', DATASET='…')}, or RECIPE=… for its model")
    if uploads and not repository:
        raise PersonError(f"where to? {make('publish', TO='owner/name', UPLOAD='1')}")
    run = Run.open(config_file)
    name = dataset or str(recipe)
    if dataset is not None:
        if dataset != POOL and dataset not in run.configuration.datasets:
            raise PersonError(f"DATASET={dataset}: there are {', '.join([POOL, *run.configuration.datasets])}")
        prepared = prepare_dataset(dataset, run, images=not no_images)
    else:
        prepared = prepare_model(find_model(run, recipe, seed), name, run)
    _tell(prepared, run.layout.root / "publish" / name)
    if not uploads:
        what = {"DATASET": dataset} if dataset else {"RECIPE": str(recipe)}
        again = make("publish", **what, TO=repository or "owner/name", UPLOAD="1")
        click.echo(f"Nothing was uploaded. To do it: {again}")
        return
    commit = upload(prepared, str(repository), public=public, message=f"{name} of {config_file}")
    click.echo(f"uploaded to {repository} ({prepared.kind}) at {commit}")


def _tell(prepared: Prepared, place: Path) -> None:
    for file, path in prepared.files.items():
        click.echo(f"{path.stat().st_size:>15,}  {file}")
    click.echo(f"{prepared.size:>15,}  bytes, prepared as a {prepared.kind}: read {place / 'README.md'} first")
    for key in prepared.unstated:
        click.echo(f"its licence is not stated, and the card says so: {key}")

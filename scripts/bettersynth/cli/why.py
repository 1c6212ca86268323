"""Say everything that happened to one record: read or refused, scored, kept or dropped, rewritten, trained on."""

from __future__ import annotations

from pathlib import Path

import click

from bettersynth.cli.options import config
from bettersynth.inspect.why import Story
from bettersynth.workflow.run import Run


@click.command(help=__doc__)
@config
@click.option("--id", "record_ids", multiple=True, metavar="ID", help="of a record (may be given several times)")
@click.option("--image", "images", multiple=True, metavar="PATH", help="of an image, as the records name it")
def command(config_file: Path, record_ids: tuple[str, ...], images: tuple[str, ...]) -> None:
    """Print the story of each record."""
    story = Story(Run.open(config_file))
    named = [*record_ids, *(record_id for image in images for record_id in story.records_with(image))]
    if not named:
        raise click.UsageError("name a record: --id ID, or --image PATH (make why ID=… or IMAGE=…)")
    click.echo("\n\n\n".join(map(story.of_record, dict.fromkeys(named))))

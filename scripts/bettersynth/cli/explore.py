"""Write the explorer: one page in which bounds are dragged, pairs are looked at, and a dataset's YAML is copied."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from bettersynth.cli.options import config
from bettersynth.core.errors import PersonError
from bettersynth.core.records import POOL
from bettersynth.inspect.looks import check_rows, told
from bettersynth.report.explorer.page import PICTURES, Explorer
from bettersynth.report.explorer.serve import Server
from bettersynth.workflow.run import Run


@click.command(help=__doc__)
@config
@click.option("--pictures", type=click.IntRange(0), default=PICTURES, show_default=True, help="pairs with a thumbnail")
@click.option("--serve", is_flag=True, help="show every picture, from a port of this machine, till Ctrl+C")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="which one (default: a free one)")
def command(config_file: Path, pictures: int, serve: bool, port: int) -> None:
    """Write the page and say where it is; or serve it."""
    run = Run.open(config_file)
    check_rows(run, POOL)
    with told():
        explorer = Explorer(run, pictures)
    if explorer.contents.unscored:
        click.echo(f"Left out, for they have not scored the pool yet: {', '.join(explorer.contents.unscored)}")
    path = explorer.write()
    click.echo(
        f"{explorer.contents.records.num_rows:,} rows, {len(explorer.contents.scores)} scores, "
        f"{len(explorer.contents.sample):,} pairs with a picture, {path.stat().st_size / 1e6:.1f} MB"
    )
    click.echo(f"Open in a browser: {path.resolve()}")
    if serve:
        _serve(explorer, port)


def _serve(explorer: Explorer, port: int) -> None:
    try:
        server = Server(explorer, port)
    except OSError as error:
        raise PersonError(f"port {port} cannot be listened on ({error.strerror}); take another: PORT=…") from None
    with server, contextlib.suppress(KeyboardInterrupt):
        click.echo(f"With every picture, till Ctrl+C: {server.address}")
        click.echo("Whoever has this address, and an account here, can look; from your own machine: ssh -L")
        server.serve_forever()

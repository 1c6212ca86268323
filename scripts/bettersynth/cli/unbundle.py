"""Open a bundle: work for this machine, or results that come home."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from bettersynth.cli.options import FILE
from bettersynth.deploy.relay import receive


@click.command(help=__doc__)
@click.option("--from", "archive", type=FILE, required=True, metavar="FILE.tar.zst")
@click.option("--results", is_flag=True, help="results that come home")
@click.option("--replace", is_flag=True, help="take the bundle's files in place of others here")
@click.option("--yes", is_flag=True, help="take the code and configuration that come with work")
def command(archive: Path, results: bool, replace: bool, yes: bool) -> None:
    """Unpack what is not here yet and print what to type next."""

    def takes(names: list[str]) -> bool:
        click.echo("\n  ".join([f"{archive} brings what will run here (to read it: tar -xOf {archive} NAME):", *names]))
        return yes or (sys.stdin.isatty() and click.confirm("Take it?"))

    manifest, new = receive(archive, "results" if results else "work", replace=replace, takes=takes)
    click.echo(f"{new:,} files unpacked, {len(manifest['files']) - new:,} were here already")
    if missing := [path for path in manifest.get("elsewhere", []) if not Path(path).exists()]:
        click.echo(f"to be put here, or staged: {', '.join(missing)}")
    if not results:
        _what_next(manifest)


def _what_next(manifest: dict[str, Any]) -> None:
    config_file = shlex.quote(manifest["config_file"])
    recipe = f" RECIPE={manifest['recipe']}" if manifest.get("recipe") else ""
    installed = Path(".venv") / "bin" / "snakemake"
    program = str(installed) if installed.exists() else "snakemake"
    command = [program, "--configfile", manifest["config_file"], "--cores", "all", "--", *manifest.get("targets", [])]
    click.echo(f"look: make verify CONFIG={config_file}{recipe}")
    click.echo(f"next: {shlex.join(command)}")
    click.echo(f"then: make bundle RESULTS=1 CONFIG={config_file} TO=results.tar.zst")

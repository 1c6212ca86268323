"""Link the SLURM profile into the user's Snakemake folder, so `--profile slurm` works from any folder."""

from __future__ import annotations

import os
from pathlib import Path

import click

from bettersynth.core.errors import PersonError

PROFILE = Path(__file__).resolve().parents[3] / "profiles" / "slurm"


def link_path() -> Path:
    """Where Snakemake looks for a profile called `slurm`."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "snakemake" / "slurm"


def link() -> str:
    """Make the link; refuses to replace anything that is not this link."""
    path = link_path()
    if path.is_symlink() and path.resolve() == PROFILE:
        return f"{path} points here already"
    if path.is_symlink() or path.exists():
        raise PersonError(f"profile: {path} exists and is not ours; move it away, then: make profile")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(PROFILE)
    return f"{path} -> {PROFILE}"


def unlink() -> str:
    """Remove the link, and nothing else."""
    path = link_path()
    if not path.is_symlink() or path.resolve() != PROFILE:
        return f"{path} is not a link to this profile; nothing removed"
    path.unlink()
    return f"removed {path}"


@click.command(help=__doc__)
@click.argument("action", type=click.Choice(["link", "unlink"]))
def command(action: str) -> None:
    """Make the link or remove it."""
    click.echo(link() if action == "link" else unlink())

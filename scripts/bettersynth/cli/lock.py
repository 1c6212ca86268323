"""Pin what is installed, pip too: `envs/lock.txt`, and from it the conda files of both kinds of node (`make lock`).

Run it in an environment that `envs/requirements.in` and `envs/torch-cpu.txt` were installed into.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import click

ENVS = Path(__file__).resolve().parents[3] / "envs"
HEADER = """\
# Written by `make lock` from requirements.in, with the sha256 of every file that may be installed: pip refuses others.
# torch is apart, for its builds come from several indexes: torch-cpu.txt, torch-cuda.txt.
"""
PIP_HEADER = "# The pip that installs all others, by the sha256 of its files (written by `make lock`).\n"
# torchvision is left out on purpose: simple-aesthetics-predictor declares it and does not use it, and its wheels fit
# only one build of torch.
APART = re.compile(r"^(torch|torchvision|triton|nvidia-.*|cuda-.*|pip|setuptools|wheel)==", re.IGNORECASE)


def pins(text: str) -> list[str]:
    """`name==version` of a requirements file or of `pip freeze`, without the packages that are kept apart."""
    return [pin for pin in re.findall(r"^[\w.-]+==[^\s\\]+", text, re.MULTILINE) if not APART.match(pin)]


def with_hashes(pinned: list[str]) -> str:
    """A requirements file of the pins, with the sha256 of every file that the package index has of each."""
    command = ["uv", "pip", "compile", "--no-deps", "--generate-hashes", "--no-header", "--no-annotate", "--quiet", "-"]
    environment = {**os.environ, "UV_OFFLINE": "0"}
    made = subprocess.run(
        command, input="\n".join(pinned), check=True, capture_output=True, text=True, env=environment, cwd=ENVS
    )
    return made.stdout


def conda_file(kind: str) -> str:
    """The conda environment file of a kind of node (`cpu`, `cuda`), for sites that run `snakemake --sdm conda`."""
    torch = [line for line in (ENVS / f"torch-{kind}.txt").read_text().splitlines() if "==" in line]
    packages = [*torch, "torchvision==0.28.0", *pins((ENVS / "lock.txt").read_text())]
    lines = [
        f"# Written by `make lock` from lock.txt and torch-{kind}.txt, for `snakemake --sdm conda`.",
        f"name: bettersynth-{kind}",
        "channels: [conda-forge, nodefaults]",
        "dependencies:",
        "  - python=3.11",
        "  - pip",
        "  - pip:",
        *(f"      - {package}" for package in packages),
    ]
    return "\n".join(lines) + "\n"


@click.command(help=__doc__)
def command() -> None:
    """Write the lock and the conda files."""
    frozen = subprocess.run([sys.executable, "-m", "pip", "freeze"], check=True, capture_output=True, text=True).stdout
    (ENVS / "lock.txt").write_text(HEADER + with_hashes(pins(frozen)))
    (ENVS / "pip.txt").write_text(PIP_HEADER + with_hashes([f"pip=={metadata.version('pip')}"]))
    for kind in ("cpu", "cuda"):
        (ENVS / f"conda-{kind}.yaml").write_text(conda_file(kind))
    click.echo(f"{len(pins(frozen))} packages pinned in envs/lock.txt")

"""Draw what a configuration would do (`make dag`): its rules, its datasets, and the files of one target."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from bettersynth.configuration import load
from bettersynth.publish import publish
from bettersynth.drawing import dataset_graph, restyled

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--config", default="config/miniature.yaml")
parser.add_argument("--target", default="all")
parser.add_argument("--out", type=Path, required=True)
arguments = parser.parse_args()


def snakemake(picture: str) -> str:
    """Snakemake's own drawing of the target, as DOT."""
    command = ["snakemake", "--configfile", arguments.config, "--forceall", f"--{picture}", arguments.target]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


configuration = load(arguments.config)
recipe = arguments.target.removeprefix("recipe_") if arguments.target.startswith("recipe_") else None
for name, drawing in {
    "rules": restyled(snakemake("rulegraph")),
    "jobs": restyled(snakemake("dag")),
    "datasets": dataset_graph(configuration, recipe),
}.items():
    path = arguments.out / f"{name}.svg"
    with publish(path) as temporary:
        drawing.draw(temporary, format="svg", prog="dot")
    print(f"{name}: {path}")

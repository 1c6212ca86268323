"""Draw what a configuration would do (`make dag`): its rules, its datasets, and the files of one target."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from bettersynth.configuration import load
from bettersynth.core.layout import Layout
from bettersynth.core.publish import publish
from bettersynth.inspect.drawing import dataset_graph, job_graph, ledger_groups, rule_graph
from bettersynth.inspect.expected import Expected
from bettersynth.workflow.plan import Plan

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--config", default="config/miniature.yaml")
parser.add_argument("--target", default="all")
parser.add_argument("--out", type=Path, required=True)
arguments = parser.parse_args()


def snakemake(picture: str) -> str:
    """Snakemake's own drawing of the target, as DOT."""
    command = ["snakemake", "--configfile", arguments.config, "--forceall", f"--{picture}", "dot", arguments.target]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(result.stderr)
    return result.stdout


configuration = load(arguments.config)
expected = Expected(configuration, Layout(Path("results") / str(configuration.name)), Plan(configuration))
recipe = arguments.target.removeprefix("recipe_") if arguments.target.startswith("recipe_") else None
drawings = {"rules": rule_graph(snakemake("rulegraph"))}
if recipe:
    drawings |= {"datasets": dataset_graph(expected, [recipe]), "jobs": job_graph(snakemake("dag"))}
else:  # the jobs of everything are too many to read; many datasets read better group by group, too
    drawings["datasets"] = dataset_graph(expected)
    groups = ledger_groups(configuration)
    if len(groups) > 1:
        drawings |= {f"datasets.{letters}": dataset_graph(expected, names) for letters, names in groups.items()}
for name, drawing in drawings.items():
    path = arguments.out / f"{recipe or 'all'}.{name}.svg"
    with publish(path) as temporary:
        drawing.draw(temporary, format="svg", prog="dot")
    print(f"{name}: {path}")

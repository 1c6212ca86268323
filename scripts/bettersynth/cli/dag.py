"""Draw what a configuration would do, as SVG: its rules, its datasets, and the jobs of one recipe."""

from __future__ import annotations

import subprocess
from pathlib import Path

import click

from bettersynth.cli.options import FILE, config, recipe
from bettersynth.configuration.load import check_recipe
from bettersynth.core.errors import PersonError
from bettersynth.core.publish import publish
from bettersynth.datasets.trial import counted_rows
from bettersynth.inspect.drawing import dataset_graph, job_graph, ledger_groups, rule_graph
from bettersynth.workflow.jobs import Jobs
from bettersynth.workflow.run import Run


@click.command(help=__doc__)
@config
@recipe("draw this recipe, with its jobs")
@click.option("--out", type=FILE, help="folder of the pictures (default: graph/ in the results)")
def command(config_file: Path, recipe: str | None, out: Path | None) -> None:
    """Draw the pictures and print where each is."""
    run = Run.open(config_file)
    check_recipe(run.configuration, recipe)
    expected = counted_rows(Jobs(run.configuration, run.layout, run.plan))
    drawings = {"rules": rule_graph(_snakemake("rulegraph", recipe, config_file))}
    if recipe:
        drawings["datasets"] = dataset_graph(expected, [recipe])
        drawings["jobs"] = job_graph(_snakemake("dag", recipe, config_file))
    else:  # the jobs of everything are too many to read; many datasets read better group by group, too
        drawings["datasets"] = dataset_graph(expected)
        groups = ledger_groups(run.configuration)
        if len(groups) > 1:
            drawings |= {f"datasets.{letters}": dataset_graph(expected, names) for letters, names in groups.items()}
    for name, drawing in drawings.items():
        path = (out or run.layout.root / "graph") / f"{recipe or 'all'}.{name}.svg"
        with publish(path) as temporary:
            drawing.draw(temporary, format="svg", prog="dot")
        click.echo(f"{name}: {path}")


def _snakemake(picture: str, recipe: str | None, config_file: Path) -> str:
    """Snakemake's own drawing of the target, as DOT."""
    target = f"recipe_{recipe}" if recipe else "all"
    command = ["snakemake", "--configfile", str(config_file), "--forceall", f"--{picture}", "dot", target]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise PersonError(result.stderr)
    return result.stdout

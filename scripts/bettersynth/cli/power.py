"""Say what difference the seeds of a configuration can show, and how many seeds and GPU-hours a wanted one takes."""

from __future__ import annotations

from pathlib import Path

import click

from bettersynth.cli.options import config
from bettersynth.core.errors import PersonError
from bettersynth.inspect.cost import Costs, Due
from bettersynth.report.power import plan_of, scatter_of, told
from bettersynth.workflow.jobs import Jobs
from bettersynth.workflow.run import Run

MEASUREMENTS = Path("docs") / "measurements"
OF_A_RUN = ("probe", "pretrain", "finetune", "answer")


@click.command(help=__doc__)
@config
@click.option("--seeds", type=click.IntRange(1), help="of each recipe, the baseline too (default: as configured)")
@click.option("--recipes", type=click.IntRange(1), help="beside the baseline (default: as configured)")
@click.option(
    "--scatter", type=click.FloatRange(0, min_open=True), help="standard deviation between runs, of the log score"
)
@click.option(
    "--difference",
    type=click.FloatRange(0, min_open=True),
    default=1.05,
    show_default=True,
    help="wanted ratio, such as 1.05",
)
def command(
    config_file: Path, seeds: int | None, recipes: int | None, scatter: float | None, difference: float
) -> None:
    """Print what the board can show, by seeds, with the hours of a GPU that it takes."""
    if difference == 1:
        raise PersonError("DIFFERENCE=1 is no difference; name a ratio such as 1.05")
    run = Run.open(config_file)
    found = scatter_of(run.configuration, run.layout, scatter)
    plan = plan_of(run.configuration, found.deviation)
    if seeds:
        plan = plan._replace(seeds=seeds, of_baseline=seeds)
    if recipes:
        plan = plan._replace(recipes=recipes)
    if not plan.recipes:
        raise PersonError(f"{config_file} has no recipe beside the baseline; say how many with RECIPES=…")
    click.echo("\n".join(told(plan, found, difference, _hours_of_a_run(run))))


def _hours_of_a_run(run: Run) -> float:
    """Hours of one GPU from probe to answers, by past runs or the project's measurements; 0 where runs need none."""
    specified = Jobs(run.configuration, run.layout, run.plan)
    due = [Due(job) for rule in specified if rule.name in OF_A_RUN for job in rule.jobs()]
    runs = sum(len(recipe.seeds) for recipe in run.configuration.recipes.values())
    return sum(line.gpu_hours for line in Costs(specified, MEASUREMENTS).lines(due)) / max(1, runs)

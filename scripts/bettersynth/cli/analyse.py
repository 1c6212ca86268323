"""Say how every score is distributed over a dataset, or over two beside each other: numbers, tables and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from bettersynth.cli.options import config
from bettersynth.core.records import POOL
from bettersynth.inspect.looks import check_rows, told
from bettersynth.inspect.tables import aligned
from bettersynth.report.analysis import write_analysis
from bettersynth.report.charts import number
from bettersynth.workflow.run import Run

MOST_WORDS = 1_000
"""Different words of a score that are told one by one."""
SHOWN = ("mean", "std", "min", "25%", "50%", "75%", "max")


@click.command(help=__doc__)
@config
@click.option("--dataset", default=POOL, show_default=True, metavar="NAME", help="the pool, or a dataset that is made")
@click.option("--beside", metavar="NAME", help="another one: the same records rewritten, say")
def command(config_file: Path, dataset: str, beside: str | None) -> None:
    """Write the files, and print the quartiles and where the files are."""
    run = Run.open(config_file)
    names = list(dict.fromkeys([dataset, *([beside] if beside else [])]))
    for name in names:
        check_rows(run, name)
    with told():
        analyses, written = write_analysis(names, run.layout, run.plan)
    click.echo("\n".join(aligned(["score", "of", "values", *SHOWN], _lines(analyses))))
    for source, operators in _unscored(analyses).items():
        click.echo(f"{source} is not scored by {', '.join(operators)}: name them in an analysis of {config_file}")
    click.echo(f"Files: {written[0].parent.resolve()}")


def _unscored(analyses: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Operators by the source that they have not scored."""
    found: dict[str, list[str]] = {}
    for operator, source in dict.fromkeys((*scores,) for one in analyses for scores in one["missing"]):
        found.setdefault(source, []).append(operator)
    return found


def _lines(analyses: list[dict[str, Any]]) -> Iterator[list[str]]:
    for key in dict.fromkeys(key for one in analyses for key in one["scores"]):
        for one in analyses:
            if found := one["scores"].get(key):
                yield [key, one["dataset"], f"{found['count']:,}", *_figures(found)]


def _figures(found: Mapping[str, Any]) -> list[str]:
    if "commonest" in found and found["unique"] > MOST_WORDS:
        return [f"{found['unique']:,} different ones"]
    if "commonest" in found:
        return [", ".join(f"{word} {count:,}" for word, count in found["commonest"][:3])]
    return ["–" if found[name] is None else number(found[name]) for name in SHOWN]

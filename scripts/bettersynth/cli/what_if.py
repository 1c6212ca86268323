"""Say what thresholds would keep: rows by operator and quantile, in pairs, and together for lists of bounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from bettersynth.cli.options import config
from bettersynth.core.csv_files import write_csv
from bettersynth.core.errors import PersonError
from bettersynth.core.records import POOL
from bettersynth.datasets.columns import columns_of
from bettersynth.inspect.looks import check_rows, told
from bettersynth.inspect.tables import aligned
from bettersynth.inspect.what_if import QUANTILES, Bound, by_quantile, in_pairs, parse, together
from bettersynth.pool.rows import read_rows
from bettersynth.report.charts import number
from bettersynth.workflow.run import Run

MOST_SHOWN = 16
"""Lines of a table that are printed; all of them are in its file."""


@click.command(help=__doc__)
@config
@click.option("--dataset", default=POOL, show_default=True, metavar="NAME", help="the rows that would be filtered")
@click.option("--keep", metavar="BOUNDS", help="such as 'words_num>=6,8 image_text_similarity>=0.28,0.3'")
def command(config_file: Path, dataset: str, keep: str | None) -> None:
    """Print the tables, and write them as CSV."""
    run = Run.open(config_file)
    check_rows(run, dataset)
    rows = read_rows(dataset, run.layout)
    with told():
        columns = columns_of(rows, run.layout, run.plan).numbers
    if not columns:
        raise PersonError(f"{dataset} has no scores yet; make run CONFIG={config_file}")
    bounds = parse(keep, columns) if keep else []
    folder = run.layout.what_if / dataset
    quantiles, pairs = list(by_quantile(columns)), list(in_pairs(columns, [several[0] for several in bounds]))
    click.echo(f"{len(rows):,} rows of {dataset}; of them kept with each quantile as lower bound\n")
    click.echo("\n".join(_quantiles(quantiles)))
    click.echo("\nIn pairs, the most alike first\n")
    click.echo("\n".join(_pairs(pairs)))
    written = [_write(folder / "quantiles.csv", quantiles), _write(folder / "pairs.csv", pairs)]
    if bounds:
        kept = list(together(columns, bounds))
        click.echo("\nTogether\n")
        click.echo("\n".join(_together(kept, len(rows))))
        written.append(write_csv(folder / "together.csv", _joint(kept, len(rows))))
    click.echo("\nFiles: " + ", ".join(str(path) for path in written))


def _quantiles(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    cells: dict[str, list[str]] = {}
    for line in lines:
        cells.setdefault(line["score"], []).append(f"{line['min']:,} ≥ {number(line['value'])}")
    yield from aligned(
        ["score", *(f"{100 * share:g} %" for share in QUANTILES)],
        ([score, *found] for score, found in cells.items()),
        left=1,
    )


def _pairs(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    alike = sorted(lines, key=lambda line: -abs(line["correlation"] or 0))
    head = ["score", "other", "correlation", "kept", "by other", "by both", "if unrelated", "both of either"]
    yield from aligned(head, map(_pair, alike[:MOST_SHOWN]))
    if len(alike) > MOST_SHOWN:
        yield f"… and {len(alike) - MOST_SHOWN} more pairs in the file"


def _pair(line: dict[str, Any]) -> list[str]:
    known = line["correlation"] is not None
    sides = {"min": "≥", "max": "≤"}
    return [
        f"{line['key']} {sides[line['side']]} {number(line['value'])}",
        f"{line['other_key']} {sides[line['other_side']]} {number(line['other_value'])}",
        f"{line['correlation']:+.3f}".replace("-", "−") if known else "–",
        *(f"{line[name]:,.0f}" for name in ("kept", "kept_other", "both", "expected")),
        f"{100 * line['jaccard']:.1f} %",
    ]


def _together(kept: Sequence[tuple[list[Bound], int]], rows: int) -> Iterator[str]:
    lines = (
        [", ".join(map(str, bounds)), f"{count:,}", f"{100 * count / (rows or 1):.1f} %"] for bounds, count in kept
    )
    table = list(aligned(["bounds", "rows", "share"], lines, left=1))
    yield from table[: MOST_SHOWN + 1]
    if len(kept) > MOST_SHOWN:
        yield f"… and {len(kept) - MOST_SHOWN} more combinations in the file"


def _joint(kept: Sequence[tuple[list[Bound], int]], rows: int) -> Iterator[Sequence[Any]]:
    first = kept[0][0] if kept else []
    yield [*(f"{bound.key} {bound.side}" for bound in first), "rows", "share"]
    yield from ([*(bound.value for bound in bounds), count, count / (rows or 1)] for bounds, count in kept)


def _write(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    head: Iterable[str] = lines[0] if lines else []
    return write_csv(path, [list(head), *(list(line.values()) for line in lines)])

"""An analysis as files: its numbers as JSON and CSV, its figures as SVG and PDF."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bettersynth.core.csv_files import write_csv
from bettersynth.core.layout import Layout
from bettersynth.core.publish import write_json
from bettersynth.datasets.analysis import PERCENTILES, analyse, changes
from bettersynth.report import figures
from bettersynth.workflow.plan import Plan

FIGURES = ("count", "mean", "std", "min", *(f"{100 * share:g}%" for share in PERCENTILES), "max")
"""Columns of `scores.csv`, by `dj-analyze`'s names."""


def write_analysis(names: Sequence[str], layout: Layout, plan: Plan) -> tuple[list[dict[str, Any]], list[Path]]:
    """Analyse each dataset, and of two what changed from one to the other; returns the analyses and the files written.

    Raises ValueError for stale scores.
    """
    analyses = [analyse(name, layout, plan) for name in names]
    folder = layout.analysed("-beside-".join(names))
    found: dict[str, Any] = {"analyses": analyses}
    if len(names) == 2:
        found["changes"] = changes(names[0], names[1], layout, plan)
    write_json(folder / "analysis.json", found)
    tables = {"scores": _scores(analyses), "histograms": _histograms(analyses), "correlations": _correlations(analyses)}
    if "changes" in found:
        tables["changes"] = _changes(found["changes"])
    written = [folder / "analysis.json"]
    written += [write_csv(folder / f"{name}.csv", lines) for name, lines in tables.items()]
    written += figures.save(figures.distributions(analyses), folder / "distributions")
    for one in analyses:
        written += figures.save(figures.correlations(one), folder / f"correlation-{one['dataset']}")
    return analyses, written


def _scores(analyses: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Any]]:
    yield ["dataset", "score", *FIGURES, "not_numbers", "unique", "top", "freq"]
    for one in analyses:
        for key, found in one["scores"].items():
            top = found.get("commonest") or [(None, None)]
            values = [found.get(name) for name in (*FIGURES, "not_numbers", "unique")]
            yield [one["dataset"], key, *values, *top[0]]


def _histograms(analyses: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Any]]:
    yield ["dataset", "score", "from", "to", "count"]
    for one in analyses:
        for key, found in one["scores"].items():
            if "histogram" in found:
                edges, counts = found["histogram"]["edges"], found["histogram"]["counts"]
                yield from ([one["dataset"], key, *bin] for bin in zip(edges, edges[1:], counts, strict=False))
            else:
                yield from ([one["dataset"], key, word, word, count] for word, count in found["commonest"])


def _correlations(analyses: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Any]]:
    yield ["dataset", "score", "other", "correlation"]
    for one in analyses:
        keys = one["correlation"]["keys"]
        for key, line in zip(keys, one["correlation"]["matrix"], strict=True):
            yield from ([one["dataset"], key, other, value] for other, value in zip(keys, line, strict=True))


def _changes(found: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    names = ("pairs", "before", "after", "rose", "fell")
    yield ["score", *names]
    yield from ([key, *(change[name] for name in names)] for key, change in found["scores"].items())

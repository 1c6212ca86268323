"""Figures fit for a paper: distributions and correlations as vector drawings, the same bytes every time.

Colours tell apart what lines and hatches tell apart, too; text stays text.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bettersynth.core.publish import publish

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every table of a font that a PDF leaves out

FORMATS = ("svg", "pdf")
COLOURS = ("#22598f", "#c2571a", "#1b7a6b", "#7a4fa3")
STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "bettersynth",
    "pdf.fonttype": 42,
}
NO_DATE: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
WIDTH, HEIGHT = 3.2, 1.9
"""Inches of one distribution."""
COLUMNS = 2


def save(figure: Figure, path: Path) -> list[Path]:
    """Publish a figure in each format beside each other; `path` has no ending."""
    paths = [path.with_suffix(f".{form}") for form in FORMATS]
    for form, target in zip(FORMATS, paths, strict=True):
        with publish(target) as temporary, matplotlib.rc_context(STYLE):
            figure.savefig(temporary, format=form, metadata=NO_DATE[form], bbox_inches="tight")
    return paths


def distributions(analyses: Sequence[Mapping[str, Any]]) -> Figure:
    """Of each score that is a number, histogram and box plot; of several analyses one over the other, as shares."""
    keys = [key for key, figures in analyses[0]["scores"].items() if figures.get("histogram", {}).get("counts")]
    lines = -(-len(keys) // COLUMNS) or 1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH * COLUMNS, HEIGHT * lines), layout="tight")
        axes = figure.subplots(lines, COLUMNS, squeeze=False).ravel()
        for histogram, key in zip(axes, keys, strict=False):
            _distribution(histogram.inset_axes((0, 1.03, 1, 0.3), sharex=histogram), histogram, key, analyses)
        for unused in axes[len(keys) :]:
            unused.remove()
        if len(analyses) > 1:
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1), frameon=False, ncols=len(analyses))
    return figure


def _distribution(box: Axes, histogram: Axes, key: str, analyses: Sequence[Mapping[str, Any]]) -> None:
    shown = [(place, one) for place, one in enumerate(analyses) if one["scores"].get(key, {}).get("count")]
    for place, one in shown:
        figures = one["scores"][key]
        edges, counts = figures["histogram"]["edges"], np.array(figures["histogram"]["counts"])
        colour, style = COLOURS[place % len(COLOURS)], ("-", "--", ":", "-.")[place % 4]
        shares = counts / counts.sum()
        if not place:
            histogram.stairs(shares, edges, fill=True, color=colour, alpha=0.25)
        histogram.stairs(shares, edges, color=colour, linestyle=style, label=f"{one['dataset']} ({one['rows']:,})")
    boxes = [_box(one["scores"][key]) for _, one in shown]
    colours = [COLOURS[place % len(COLOURS)] for place, _ in shown]
    drawn = box.bxp(boxes, orientation="horizontal", showfliers=False, widths=0.6)
    for part in ("boxes", "medians"):
        for line, colour in zip(drawn[part], colours, strict=True):
            line.set_color(colour)
    box.set_title(key, loc="left", fontweight="bold", fontsize=8)
    box.set_axis_off()
    box.invert_yaxis()
    histogram.set_ylabel("share")


def _box(figures: Mapping[str, float]) -> dict[str, Any]:
    """Quartiles, and whiskers to the first and last hundredth."""
    places = {"whislo": "1%", "q1": "25%", "med": "50%", "q3": "75%", "whishi": "99%"}
    return {name: figures[percentile] for name, percentile in places.items()}


def correlations(analysis: Mapping[str, Any]) -> Figure:
    """Pearson's correlations as a matrix with its numbers."""
    keys, matrix = analysis["correlation"]["keys"], analysis["correlation"]["matrix"]
    values = np.array(matrix, dtype=float).reshape(len(keys), len(keys))
    side = 1.6 + 0.42 * len(keys)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(side, side), layout="tight")
        axes = figure.subplots()
        axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set_xticks(range(len(keys)), keys, rotation=90)
        axes.set_yticks(range(len(keys)), keys)
        axes.spines[:].set_visible(False)
        for (line, place), value in np.ndenumerate(values):
            text = "–" if np.isnan(value) else f"{value:.2f}".replace("-", "−")
            axes.text(place, line, text, ha="center", va="center", color="white" if abs(value) > 0.6 else "black")
    return figure

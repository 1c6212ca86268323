"""Charts as inline SVG: small, deterministic, coloured by the page's style sheet (so they follow light and dark).

Every chart has a `<title>` that says what it shows. Lengths are SVG user units, which are CSS pixels at full size.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pygraphviz
from markupsafe import Markup, escape

Point = tuple[float, float]
SERIES = 6
"""Colours that the style sheet has for series; more are drawn in the same ones again."""
LONGEST_NAME = 24
"""Characters of a dataset's name that its box has room for."""
POINTS = 72
"""Of an inch, in which Graphviz takes lengths; what it answers is in points."""
MARGIN = 4.0
"""Around the graph of datasets."""
FLOW_SIZE = 9
"""Of the counts at its edges, in points."""


class Scale(NamedTuple):
    """A linear map from data to user units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers inside `[low, high]`."""
    span = high - low
    if span <= 0:
        return [low]
    raw = span / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A number for an axis: short, without trailing zeros."""
    form = ",.0f" if abs(value) >= 1e3 else ".4g" if abs(value) >= 1e-3 else ".2g"
    return format(value, form).replace("-", "−")


def svg(title: str, width: float, height: float, parts: Iterable[str], name: str) -> Markup:
    """An SVG element that scales down with the page and is announced by its title."""
    return Markup(
        f'<svg class="chart {name}" viewBox="0 0 {_n(width)} {_n(height)}" width="{_n(width)}" '
        f'height="{_n(height)}" role="img"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )


def histogram(
    title: str,
    edges: np.ndarray,
    shares: Mapping[str, np.ndarray],
    thresholds: Sequence[tuple[float, str]] = (),
    *,
    width: float = 540,
    height: float = 200,
) -> Markup:
    """Shares of records by score, `[bins]` for each source: the first filled, the others as lines.

    `thresholds` are `(value, what is kept)`.
    """
    left, right, top, bottom = 8.0, width - 8.0, 18.0, height - 22.0
    x = Scale(float(edges[0]), float(edges[-1]), left, right)
    y = Scale(0.0, max((float(share.max()) for share in shares.values()), default=1.0) or 1.0, bottom, top)
    parts = [_line(left, bottom, right, bottom, "axis")]
    for tick in ticks(x.low, x.high, 5):
        parts += [
            _line(x(tick), bottom, x(tick), bottom + 4, "axis"),
            _text(x(tick), bottom + 16, number(tick), "tick"),
        ]
    for position, share in enumerate(shares.values()):
        parts.append(_steps(edges, share, x, y, position))
    for value, kept in thresholds:
        if x.low <= value <= x.high:
            parts.append(
                f'<g class="threshold">{_line(x(value), top - 4, x(value), bottom, "")}'
                f"{_text(x(value), top - 8, number(value), 'tick')}<title>{escape(kept)}</title></g>"
            )
    return svg(title, width, height, parts, "histogram")


def curves(
    title: str,
    lines: Mapping[str, Sequence[Point]],
    x_high: float,
    y_range: tuple[float, float],
    stopped: Collection[str] = (),
    *,
    width: float = 300,
    height: float = 130,
) -> Markup:
    """Lines over steps, one colour for each place in `lines`, an empty one's too; those that `stopped` end in a cross.

    Every chart of a stage shares `x_high` and `y_range`, so that they can be compared.
    """
    left, right, top, bottom = 30.0, width - 8.0, 8.0, height - 20.0
    x, y = Scale(0.0, x_high, left, right), Scale(*y_range, bottom, top)
    parts = []
    for tick in ticks(*y_range, 3):
        parts += [
            _line(left, y(tick), right, y(tick), "grid"),
            _text(left - 5, y(tick) + 3.5, number(tick), "tick end"),
        ]
    parts.append(_line(left, bottom, right, bottom, "axis"))
    for tick in ticks(0, x_high, 3):
        parts.append(_text(x(tick), bottom + 14, number(tick), "tick"))
    for position, (label, points) in enumerate(lines.items()):
        if not points:
            continue
        path = "M" + "L".join(f"{_n(x(step))} {_n(y(loss))}" for step, loss in points)
        name, told = f"line s{position % SERIES}", label
        if label in stopped:
            parts.append(_cross(x(points[-1][0]), y(points[-1][1]), name))
            name, told = f"{name} stopped", f"{label}, stopped"
        parts.append(f'<path class="{name}" d="{path}"><title>{escape(told)}</title></path>')
    return svg(title, width, height, parts, "curves")


def scatter(
    title: str, dots: Sequence[tuple[float, float, int, str]], *, width: float = 300, height: float = 190
) -> Markup:
    """Dots `(x, y, place of the colour, label)`, with lines through zero."""
    left, right, top, bottom = 38.0, width - 8.0, 8.0, height - 22.0

    def scale(values: Sequence[float], start: float, end: float) -> Scale:
        low, high = min(0.0, *values), max(0.0, *values)
        room = 0.06 * (high - low or 1.0)
        return Scale(low - room, high + room, start, end)

    x, y = scale([dot[0] for dot in dots], left, right), scale([dot[1] for dot in dots], bottom, top)
    parts = [_line(x(0), top, x(0), bottom, "reference"), _line(left, y(0), right, y(0), "reference")]
    parts += [_text(x(tick), bottom + 16, number(tick), "tick") for tick in ticks(x.low, x.high, 4)]
    parts += [_text(left - 5, y(tick) + 3.5, number(tick), "tick end") for tick in ticks(y.low, y.high, 4)]
    parts += [
        f'<circle class="dot s{place % SERIES}" cx="{_n(x(across))}" cy="{_n(y(up))}" r="3">'
        f"<title>{escape(label)}</title></circle>"
        for across, up, place, label in dots
    ]
    return svg(title, width, height, parts, "scatter")


def strip(
    title: str,
    scale: tuple[float, float],
    mean: float | None,
    interval: Sequence[float] | None,
    dots: Sequence[float],
    published: float | None,
    tone: str,
    *,
    width: float = 210,
    height: float = 30,
) -> Markup:
    """One row of the leaderboard: seeds as dots, mean and interval, the published figure as a diamond, 1 as a line."""
    x = Scale(*scale, 8.0, width - 8.0)
    middle = height / 2
    parts = [_line(x(1.0), 0, x(1.0), height, "reference")]
    if interval is not None:
        low, high = max(interval[0], scale[0]), min(interval[1], scale[1])
        parts.append(_line(x(low), middle, x(high), middle, f"interval {tone}"))
        ends = zip((low, high), interval, strict=True)
        parts += [
            _line(x(end), middle - 4, x(end), middle + 4, f"interval {tone}") for end, true in ends if end == true
        ]
    parts += [f'<circle class="seed" cx="{_n(x(dot))}" cy="{_n(middle)}" r="2.6"/>' for dot in dots]
    if mean is not None:
        parts.append(f'<circle class="mean {tone}" cx="{_n(x(mean))}" cy="{_n(middle)}" r="4.6"/>')
    if published is not None:
        parts.append(_diamond(x(min(max(published, scale[0]), scale[1])), middle, 5.2))
    return svg(title, width, height, parts, "strip")


def axis(scale: tuple[float, float], *, width: float = 210, height: float = 18) -> Markup:
    """The scale of the leaderboard's rows."""
    x = Scale(*scale, 8.0, width - 8.0)
    parts = [_text(x(tick), 13, number(tick), "tick") for tick in ticks(*scale, 4)]
    return svg(f"Scale from {number(scale[0])} to {number(scale[1])}", width, height, parts, "strip")


class Node(NamedTuple):
    """A dataset in the graph."""

    name: str
    label: str
    detail: str
    parents: tuple[str, ...]
    marked: bool
    flows: Mapping[str, str] = {}
    """What stands at the edge from a parent."""


def graph(title: str, nodes: Sequence[Node]) -> Markup:
    """The datasets from left to right, as Graphviz places them; `nodes` list parents first."""
    longest = min(max(len(node.name) for node in nodes), LONGEST_NAME)
    box_width, box_height = 7.4 * max(longest, 10) + 20, 38.0
    drawn = pygraphviz.AGraph(directed=True, rankdir="LR", nodesep=14 / POINTS, ranksep=34 / POINTS)
    drawn.edge_attr.update(arrowhead="none")  # from left to right, so edges end where boxes begin
    drawn.node_attr.update(shape="box", fixedsize="true", width=box_width / POINTS, height=box_height / POINTS)
    for node in nodes:
        drawn.add_node(node.name)
        for parent in dict.fromkeys(node.parents):
            label = node.flows.get(parent)
            room = {"label": "0" * len(label), "fontsize": FLOW_SIZE} if label else {}
            drawn.add_edge(parent, node.name, **room)
    drawn.layout(prog="dot")
    _, _, width, height = map(float, drawn.graph_attr["bb"].split(","))

    def place(text: str) -> Point:
        """A point of Graphviz, whose heights grow upwards, in ours."""
        x, y = map(float, text.split(","))
        return x + MARGIN, height - y + MARGIN

    parts = []
    for node in nodes:
        for parent in dict.fromkeys(node.parents):
            curve = [place(point) for point in drawn.get_edge(parent, node.name).attr["pos"].split()]
            parts.append(_curve(curve, parent != node.parents[0]))
            if parent in node.flows:
                x, y = place(drawn.get_edge(parent, node.name).attr["lp"])
                parts.append(_text(x, y + FLOW_SIZE / 3, node.flows[parent], "flow"))
    for node in nodes:
        x, y = place(drawn.get_node(node.name).attr["pos"])
        x, y = x - box_width / 2, y - box_height / 2
        parts.append(
            f'<g class="node{" marked" if node.marked else ""}"><rect x="{_n(x)}" y="{_n(y)}" width="{_n(box_width)}" '
            f'height="{_n(box_height)}" rx="5"/>{_text(x + 10, y + 16, _short(node.name, LONGEST_NAME), "name")}'
            f"{_text(x + 10, y + 30, node.label, 'rows')}<title>{escape(node.name)}: {escape(node.detail)}</title></g>"
        )
    return svg(title, width + 2 * MARGIN, height + 2 * MARGIN, parts, "graph")


def _curve(points: Sequence[Point], further: bool) -> str:
    """An edge along Graphviz's Bézier points."""
    (x, y), *rest = points
    bends = " ".join(f"{_n(x)} {_n(y)}" for x, y in rest)
    return f'<path class="edge{" side" if further else ""}" d="M{_n(x)} {_n(y)}C{bends}"/>'


def thin(points: Sequence[Point], most: int = 150) -> list[Point]:
    """At most `most` points: means of equal runs of neighbours, so that no spike is invented or shifted."""
    if len(points) <= most:
        return list(points)
    runs = np.array_split(np.asarray(points, dtype=float), most)
    return [(float(run[:, 0].mean()), float(run[:, 1].mean())) for run in runs]


def _steps(edges: np.ndarray, share: np.ndarray, x: Scale, y: Scale, position: int) -> str:
    path = f"M{_n(x(float(edges[0])))} {_n(y(0))}"
    for left, right, value in zip(edges[:-1], edges[1:], share, strict=True):
        path += f"L{_n(x(float(left)))} {_n(y(float(value)))}L{_n(x(float(right)))} {_n(y(float(value)))}"
    path += f"L{_n(x(float(edges[-1])))} {_n(y(0))}"
    return f'<path class="{"area" if position == 0 else "line"} s{position % SERIES}" d="{path}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, name: str) -> str:
    return f'<line class="{name}" x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"/>'


def _text(x: float, y: float, text: str, name: str) -> str:
    return f'<text class="{name}" x="{_n(x)}" y="{_n(y)}">{escape(text)}</text>'


def _cross(x: float, y: float, name: str, size: float = 4.0) -> str:
    ends = [(_n(x + across), _n(y + up)) for across, up in ((-size, -size), (size, size), (-size, size), (size, -size))]
    (a, b), (c, d), (e, f), (g, h) = ends
    return f'<path class="{name} end" d="M{a} {b}L{c} {d}M{e} {f}L{g} {h}"/>'


def _diamond(x: float, y: float, size: float) -> str:
    return (
        f'<path class="published" d="M{_n(x)} {_n(y - size)}L{_n(x + size)} {_n(y)}'
        f'L{_n(x)} {_n(y + size)}L{_n(x - size)} {_n(y)}Z"/>'
    )


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _n(value: float) -> str:
    """A coordinate with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")

"""Pictures of the graph: datasets as the configuration names them, and Snakemake's own drawings in one style."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from html import escape

import pygraphviz

from bettersynth.configuration.types import Configuration, Recipe
from bettersynth.core.records import POOL
from bettersynth.workflow.expected import Basis, Expected

FONT = "Helvetica,Arial,sans-serif"
INK, GREY, GREEN, PAPER = "#1f2937", "#6b7280", "#15803d", "#ffffff"
COLOURS = {"pool": "#e5e7eb", "choice": "#dbeafe", "generator": "#fef3c7", "splice": "#ede9fe"}
ROWS = {
    Basis.MADE: "{} rows",
    Basis.APPLIED: "{} rows",
    Basis.COUNTED: "{} rows",
    Basis.PUBLISHED: "{} rows published",
    Basis.RECKONED: "about {} rows",
    Basis.AT_MOST: "",  # says nothing that the parent does not
}


MERGED = ("shard", "chunk", "scoring", "seed")
"""Wildcards whose values make no difference in a drawing of jobs."""

LEGEND = (
    "blue: rows are chosen   yellow: records are made anew   violet: records are spliced in   "
    "green frame: a recipe trains on it   dashed: a second parent"
)


def styled(graph: pygraphviz.AGraph) -> pygraphviz.AGraph:
    """The graph in the project's style."""
    graph.graph_attr.update(rankdir="LR", bgcolor=PAPER, fontname=FONT, nodesep="0.16", ranksep="0.4", margin="0.2")
    graph.node_attr.update(shape="box", style="rounded,filled", fontname=FONT, fontsize="11", color="#9ca3af")
    graph.node_attr.update(fontcolor=INK, fillcolor=PAPER, penwidth="1", margin="0.12,0.06")
    graph.edge_attr.update(color=GREY, arrowsize="0.6", penwidth="1", fontname=FONT, fontsize="9")
    return graph


def rule_graph(dot: str) -> pygraphviz.AGraph:
    """Snakemake's drawing of the rules (DOT text) in the project's style."""
    drawn = _parsed(dot)
    graph = styled(pygraphviz.AGraph(directed=True, strict=True))
    for node in drawn.nodes():
        graph.add_node(node, label=node.attr["label"])
    graph.add_edges_from(edge for edge in drawn.edges() if edge[0] != edge[1])
    return graph


def job_graph(dot: str) -> pygraphviz.AGraph:
    """Snakemake's drawing of the jobs, alike jobs as one, and without shortcuts.

    Alike are jobs that differ in shard or seed only and that the same jobs, or alike ones, wait for. A shortcut is an
    edge between jobs that a longer way joins too, such as from the pool's index to every dataset.
    """
    drawn = _parsed(dot)
    numbers: dict[tuple[str, frozenset[int]], int] = {}

    @cache
    def number_of(node: str) -> int:
        lines = (drawn.get_node(node).attr["label"] or "").split("\\n")
        label = "\\n".join(line for line in lines if line.partition(":")[0] not in MERGED)
        return numbers.setdefault((label, frozenset(map(number_of, drawn.successors(node)))), len(numbers))

    members = Counter(number_of(str(node)) for node in drawn.nodes())
    graph = styled(pygraphviz.AGraph(directed=True, strict=True))
    for (label, _), number in numbers.items():
        graph.add_node(number, label=label + f"\\n{members[number]} jobs" * (members[number] > 1))
    graph.add_edges_from((number_of(str(start)), number_of(str(end))) for start, end in drawn.edges())
    graph.tred()
    return graph


def _parsed(dot: str) -> pygraphviz.AGraph:
    """Snakemake's drawing, which a line of its own may stand before."""
    return pygraphviz.AGraph(string=dot[dot.index("digraph") :])


def dataset_graph(expected: Expected, recipes: Collection[str] | None = None) -> pygraphviz.AGraph:
    """Datasets from the pool on, their rows and the recipes that train on them; of some recipes, their ancestors."""
    configuration = expected.configuration
    names: Iterable[str] = configuration.datasets
    if recipes is not None:
        datasets = (configuration.recipes[recipe].dataset for recipe in recipes)
        names = dict.fromkeys(step for dataset in datasets for step in expected.plan.lineage(dataset))
    chosen = {name: recipe for name, recipe in configuration.recipes.items() if recipes is None or name in recipes}
    graph = styled(pygraphviz.AGraph(directed=True, strict=False))
    graph.graph_attr.update(label=LEGEND, labelloc="b", labeljust="l", fontsize="10", fontcolor=GREY)
    for name in (POOL, *names):
        _add(graph, name, expected, {key: recipe for key, recipe in chosen.items() if recipe.dataset == name})
    return graph


def ledger_groups(configuration: Configuration) -> dict[str, list[str]]:
    """Recipes by the letters of their rows in the ledger of published experiments, `rest` for those of no row."""
    groups: dict[str, list[str]] = {}
    for name, recipe in configuration.recipes.items():
        row = recipe.published.row if recipe.published else None
        groups.setdefault(row.rstrip("0123456789") if row else "rest", []).append(name)
    return groups


def _add(graph: pygraphviz.AGraph, name: str, expected: Expected, recipes: dict[str, Recipe]) -> None:
    kind, what = POOL, ""
    if name != POOL:
        node = expected.plan.dataset(name)
        kind, what = node.verb.kind, node.verb.brief()
        for parent in node.parents:
            graph.add_edge(parent, name, style="solid" if parent == node.from_ else "dashed")
    number, basis = expected.rows(name)
    rows = ROWS[basis].format(f"{number:,}")
    trained = {"color": GREEN, "penwidth": "2"} if recipes else {}
    graph.add_node(name, label=_label(name, what, rows, recipes), fillcolor=COLOURS[kind], **trained)


def _label(name: str, what: str, rows: str, recipes: dict[str, Recipe]) -> str:
    """Name, verb, rows, and a line for each recipe, as Graphviz's HTML."""
    lines = [f"<b>{escape(name)}</b>", *map(escape, what.splitlines())]
    if rows:
        lines.append(f'<font color="{GREY}">{rows}</font>')
    lines.extend(f'<font color="{GREEN}">{escape(line)}</font>' for line in _recipe_lines(name, recipes))
    return f"<{'<br/>'.join(lines)}>"


def _recipe_lines(dataset: str, recipes: dict[str, Recipe]) -> Iterator[str]:
    for name, recipe in recipes.items():
        seeds = len(recipe.seeds)
        called = "recipe" if name == dataset else f"recipe {name}"
        if recipe.published and recipe.published.row:
            called += f" ({recipe.published.row})"
        yield f"{called}, {seeds} seed{'s' * (seeds > 1)}"

"""Pictures of the graph: datasets as the configuration names them, and Snakemake's own drawings in one style."""

from __future__ import annotations

import pygraphviz

from bettersynth.configuration.types import GENERATORS, Configuration
from bettersynth.plan import Plan
from bettersynth.records import POOL
from bettersynth.wording import brief

FONT = "Helvetica,Arial,sans-serif"
INK, PAPER = "#1f2937", "#ffffff"
COLOURS = {"pool": "#e5e7eb", "choice": "#dbeafe", "generator": "#fef3c7", "splice": "#ede9fe", "recipe": "#dcfce7"}


def styled(graph: pygraphviz.AGraph) -> pygraphviz.AGraph:
    """The graph in the project's style."""
    graph.graph_attr.update(rankdir="LR", bgcolor=PAPER, fontname=FONT, nodesep="0.25", ranksep="0.45", margin="0.2")
    graph.node_attr.update(shape="box", style="rounded,filled", fontname=FONT, fontsize="11", color="#9ca3af")
    graph.node_attr.update(fontcolor=INK, fillcolor=PAPER, penwidth="1", margin="0.12,0.06")
    graph.edge_attr.update(color="#6b7280", arrowsize="0.6", penwidth="1", fontname=FONT, fontsize="9")
    return graph


def restyled(dot: str) -> pygraphviz.AGraph:
    """Snakemake's drawing (DOT text) in the project's style."""
    graph = pygraphviz.AGraph(string=dot[dot.index("digraph") :])
    for node in graph.nodes():
        finished = "dashed" in (node.attr["style"] or "")
        node.attr.update(style="rounded,filled,dashed" if finished else "rounded,filled", color="#9ca3af")
        node.attr["label"] = (node.attr["label"] or "").replace("_", " ")
    return styled(graph)


def dataset_graph(configuration: Configuration, recipe: str | None = None) -> pygraphviz.AGraph:
    """Datasets from the pool to the recipes; of one recipe, only its ancestors."""
    plan = Plan(configuration)
    recipes = {recipe: configuration.recipes[recipe]} if recipe else configuration.recipes
    names = (
        dict.fromkeys(name for chosen in recipes.values() for name in plan.lineage(chosen.dataset))
        if recipe
        else configuration.datasets
    )
    graph = styled(pygraphviz.AGraph(directed=True, strict=False))
    graph.add_node(POOL, fillcolor=COLOURS["pool"])
    for name in names:
        node = configuration.datasets[name]
        kind = "generator" if node.verb in GENERATORS else "splice" if node.verb == "splice" else "choice"
        graph.add_node(name, label=f"{name}\n{brief(node)}", fillcolor=COLOURS[kind])
        for parent in node.parents:
            graph.add_edge(parent, name, style="solid" if parent == node.from_ else "dashed")
    for name, chosen in recipes.items():
        seeds = len(chosen.seeds)
        graph.add_node(
            f"recipe {name}",
            label=f"{name}\n{seeds} seed{'s' * (seeds > 1)}",
            fillcolor=COLOURS["recipe"],
            color="#15803d",
        )
        graph.add_edge(chosen.dataset, f"recipe {name}")
    return graph

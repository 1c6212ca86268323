"""Pictures: what a reader finds in a box, and jobs that are drawn as one."""

from __future__ import annotations

from fake_results import fake_configuration

from bench import ROOT
from bettersynth.configuration import load
from bettersynth.core.layout import Layout
from bettersynth.inspect.drawing import dataset_graph, job_graph, ledger_groups, rule_graph
from bettersynth.workflow.expected import Expected
from bettersynth.workflow.plan import Plan

DOT = r"""Building DAG of jobs...
digraph snakemake_dag {
    node[shape=box, style=rounded, fontname=sans];
    0[label = "recipe_best", color = "0.1 0.6 0.85", style="rounded"];
    1[label = "pretrain\nseed: 1", color = "0.2 0.6 0.85", style="rounded"];
    2[label = "pretrain\nseed: 2", color = "0.2 0.6 0.85", style="rounded"];
    3[label = "dataset\ndataset: best", color = "0.3 0.6 0.85", style="rounded"];
    4[label = "scores_of\noperator: similarity", color = "0.4 0.6 0.85", style="rounded"];
    5[label = "score_neural\nchunk: a-0000-0015", color = "0.5 0.6 0.85", style="rounded"];
    6[label = "score_neural\nchunk: a-0016-0031", color = "0.5 0.6 0.85", style="rounded"];
    7[label = "pool_index", color = "0.6 0.6 0.85", style="rounded"];
    8[label = "scores_of\noperator: similarity", color = "0.4 0.6 0.85", style="rounded"];
    1 -> 0
    2 -> 0
    3 -> 1
    3 -> 2
    4 -> 3
    5 -> 4
    6 -> 4
    7 -> 5
    7 -> 6
    7 -> 3
    8 -> 4
}
"""


def labels(graph):
    return [node.attr["label"] for node in graph.nodes()]


def drawing(tmp_path, recipes=None):
    configuration = fake_configuration(tmp_path)
    return dataset_graph(Expected(configuration, Layout(tmp_path / "results"), Plan(configuration)), recipes)


def test_a_box_says_verb_rows_and_recipe(tmp_path):
    graph = drawing(tmp_path)
    label = graph.get_node("best").attr["label"]
    assert "<b>best</b><br/>× 2" in label
    assert "246,074 rows published" in label and "recipe, 3 seeds" in label
    assert "recipe one_seed, 1 seed<" in graph.get_node("spliced").attr["label"]
    assert "about 123,037 rows" in graph.get_node("spliced").attr["label"]
    assert "rows" not in graph.get_node("weak").attr["label"], "what a filter keeps is not known yet"
    assert graph.get_edge("better", "spliced").attr["style"] == "dashed"


def test_of_one_recipe_only_its_ancestors_are_drawn(tmp_path):
    graph = drawing(tmp_path, ["matched"])
    assert set(graph.nodes()) == {"pool", "grounded", "matched"}
    assert "recipe" not in graph.get_node("grounded").attr["label"]


def test_the_contest_is_drawn_group_by_group():
    groups = ledger_groups(load(ROOT / "config" / "contest.yaml"))
    assert {"S", "D", "T", "F", "rest"} <= groups.keys()
    assert {"matched", "best"} <= set(groups["F"]) and "similar" in groups["S"]


def test_jobs_that_differ_in_shard_or_seed_are_one_box():
    graph = job_graph(DOT)
    assert r"score_neural\n2 jobs" in labels(graph)
    assert r"pretrain\n2 jobs" in labels(graph)
    assert [label for label in labels(graph) if "scores_of" in label] == [r"scores_of\noperator: similarity"] * 2, (
        "others wait for them"
    )


def test_shortcuts_are_left_out():
    graph = job_graph(DOT)
    by_label = {node.attr["label"]: node for node in graph.nodes()}
    assert not graph.has_edge(by_label["pool_index"], by_label[r"dataset\ndataset: best"])
    assert graph.has_edge(by_label["pool_index"], by_label[r"score_neural\n2 jobs"])


def test_rules_keep_every_box_and_edge():
    graph = rule_graph(DOT)
    assert len(graph.nodes()) == 9 and len(graph.edges()) == 11

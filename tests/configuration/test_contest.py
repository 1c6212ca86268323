"""The contest's configuration against the ledger of published experiments."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from workflow import ROOT

from bench.dry_run import dry_run, place_inputs
from bettersynth.configuration import load
from bettersynth.configuration.ledger import read_ledger, recipes_of, with_tables
from bettersynth.configuration.operators import operator_spec
from bettersynth.configuration.recipes import recipe_training, recipe_trainset
from bettersynth.workflow.plan import Plan

CONFIG = ROOT / "config" / "contest.yaml"
CONTEST = load(CONFIG)
LEDGER = read_ledger(ROOT / "resources" / "contest" / "ledger.yaml")
WRITE_UP = {
    *(f"S{number}" for number in range(1, 5)),
    *(f"D{number}" for number in range(1, 6)),
    *(f"T{number}" for number in range(1, 7)),
    *(f"P{number}" for number in range(1, 5)),
    *(f"F{number}" for number in range(9)),
    *(f"Q{number}" for number in range(1, 4)),
}


def test_the_ledger_is_whole():
    assert LEDGER["rows"].keys() | LEDGER["analyses"].keys() >= WRITE_UP
    assert len(LEDGER["contradictions"]) == 18
    assert sum("mmbench" in row for name, row in LEDGER["rows"].items() if name[0] == "L") == 19
    assert sum("mmbench" in row for name, row in LEDGER["rows"].items() if name[0] in "SDT") == 15


@pytest.mark.parametrize("name", LEDGER["rows"])
def test_every_row_is_a_recipe_with_its_figures(name):
    row = LEDGER["rows"][name]
    recipes = [recipe for recipe in recipes_of(CONTEST, name) if recipe in CONTEST.recipes]
    assert recipes, f"no recipe states to be row {name}"
    for recipe in recipes:
        published = CONTEST.recipes[recipe].published
        stated = {"rows": published.rows, "mmbench": published.mmbench, "textvqa": published.textvqa}
        assert stated == {key: row.get(key) for key in stated}, recipe


@pytest.mark.parametrize("name", LEDGER["analyses"])
def test_every_table_of_quartiles_is_an_analysis_with_its_figures(name):
    analyses = [analysis for analysis in recipes_of(CONTEST, name) if analysis in CONTEST.analyses]
    assert analyses
    for analysis in analyses:
        published = CONTEST.analyses[analysis].published
        for score, figures in LEDGER["analyses"][name].items():
            assert published[score].model_dump(exclude_none=True) == figures


def test_no_recipe_states_a_row_that_was_not_published():
    stated = {recipe.published.row for recipe in CONTEST.recipes.values() if recipe.published and recipe.published.row}
    stated |= {analysis.row for analysis in CONTEST.analyses.values() if analysis.row}
    assert stated <= LEDGER["rows"].keys() | LEDGER["analyses"].keys()


def test_every_ratio_of_mmbench_is_a_whole_number_of_questions():
    # four digits of a ratio: half a unit of the last is 0.008 questions
    for name, row in LEDGER["rows"].items():
        if "mmbench" in row:
            assert row["mmbench"] * LEDGER["questions_per_ratio"] == pytest.approx(row["hits"], abs=0.008), name


def test_recipes_train_as_many_steps_as_published():
    for name, row in LEDGER["rows"].items():
        for recipe in recipes_of(CONTEST, name) if "steps" in row else ():
            trainset, training = recipe_trainset(CONTEST, recipe), recipe_training(CONTEST, recipe)
            assert min(row["rows"], trainset.cap) // training.pretrain.global_batch == row["steps"], name


def test_the_contest_s_operators_have_its_models_and_parameters():
    by_op = {operator.op: operator for operator in reversed(CONTEST.operators.values())}  # the first of each kind
    for op, expected in LEDGER["operators"].items():
        hub = CONTEST.models[by_op[op].model].hub if by_op[op].model else None
        assert hub == expected.get("hub"), op
        parameters = {key: value for key, value in expected.items() if key != "hub"}
        assert parameters.items() <= operator_spec(op).completed(by_op[op].parameters).items(), op


@pytest.mark.parametrize("number", range(1, 19))
def test_every_contradiction_has_its_reading_and_says_so(number):
    entry = LEDGER["contradictions"][number - 1]
    readings = [CONTEST.recipes[name] for name in [*entry.get("default", [])[:1], *entry.get("others", [])]]
    analyses = [*entry.get("default_analyses", []), *entry.get("other_analyses", [])]
    readings += [CONTEST.analyses[name] for name in analyses]
    assert readings
    for reading in readings:
        assert re.search(rf"Contradictions?[ \d,and]* {number}\b", reading.note or ""), reading
    assert set(entry.get("default", [])) <= CONTEST.recipes.keys()


@pytest.mark.parametrize(
    ("dataset", "story"),
    [
        ("grounded", "keep the rows with phrase_grounding ≥ 0.5"),
        ("matched", "keep the rows with image_text_matching ≥ 0.9984"),
        ("weak", "keep the rows with image_text_similarity from 0.01 to 0.28"),
        ("rewritten", "let blip2 (Salesforce/blip2-opt-2.7b) write a new caption for every row, seed 0"),
        ("better", "keep the rows with image_text_similarity ≥ 0.28"),
        ("spliced", "where better has a row of the same id, its version takes the row's place"),
        ("best", "all rows twice"),
    ],
)
def test_the_best_recipe_is_the_write_up_s(dataset, story):
    assert CONTEST.datasets[dataset].verb.sentence(CONTEST).startswith(story)
    assert dataset in Plan(CONTEST).lineage(CONTEST.recipes["best"].dataset)


def test_the_guide_s_tables_are_current():
    path = ROOT / "docs" / "contest.md"
    page = path.read_text(encoding="utf-8")
    assert page == with_tables(page, CONTEST, LEDGER), "docs/contest.md is stale; run: make reference"
    assert all(f"<!-- table {name} -->" in page for name in ("models", "rows", "contradictions", "variants"))


@pytest.mark.workflow
def test_every_recipe_has_its_graph_before_anything_is_there(tmp_path: Path):
    place_inputs(CONTEST, tmp_path)
    output = dry_run(CONFIG, CONTEST, tmp_path).output
    jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)}
    runs = sum(len(recipe.seeds) for recipe in CONTEST.recipes.values())
    assert jobs["finetune"] == jobs["pretrain"] == runs
    assert jobs["trainset"] == len(CONTEST.recipes)
    assert jobs["dataset"] == len(CONTEST.datasets)
    assert jobs["analysis"] == len(CONTEST.analyses)
    assert not list(tmp_path.glob("results/*/datasets")), "a dry run makes nothing"

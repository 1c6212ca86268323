"""A dataset in words: the steps from the pool, the ledgers, what is published and what is not there yet."""

from __future__ import annotations

import re

import pytest
from fake_results import fake_configuration, write_fake_results

from bettersynth.configuration.datasets import Dataset
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, write_json
from bettersynth.inspect.explain import Explanation, UnknownNameError
from bettersynth.workflow.expected import Basis, Expected, Rows
from bettersynth.workflow.plan import Plan


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    configuration, layout, _ = write_fake_results(folder)
    for name, recipe in configuration.recipes.items():
        if (path := layout.trainset_card(name)).exists():
            dataset = read_json(layout.dataset_card(recipe.dataset))
            write_json(path, read_json(path) | {"inputs": {recipe.dataset: dataset["sha256"]}})
    return Explanation(configuration, "config/fake.yaml", layout)


@pytest.fixture
def planned(tmp_path):
    """The same configuration, before anything was made and without the raw files."""
    return Explanation(fake_configuration(tmp_path), "config/fake.yaml", Layout(tmp_path / "results"))


def test_every_step_from_the_pool_is_told_in_order(made):
    text = made.dataset("spliced")
    steps = re.findall(r"^ +\d+\. (\w+):", text, re.MULTILINE)
    assert steps == ["pool", "grounded", "matched", "weak", "rewritten", "better", "spliced"]
    assert "of pool, keep the rows with phrase_grounding ≥ 0.5" in text
    assert "Trained by the recipe one_seed." in text
    assert "To make it" not in text


def test_rows_are_those_of_the_ledgers(made):
    text = made.dataset("matched")
    ledger = read_json(made.layout.dataset_card("matched"))["ledger"]
    (reason,) = ledger["dropped"]
    dropped = ledger["dropped"][reason]
    assert f"{ledger['in']:,} rows in, {ledger['out']:,} out, {dropped:,} dropped: {reason}" in text
    assert f"published: 123,037 rows, {ledger['out'] / 123037:.1%} of that here" in text
    assert "reads image_text_matching of pool (image_text_matching_filter): there" in text
    assert "not JSON" in text, "why lines of the raw file are in quarantine"


def test_before_anything_is_made_published_rows_stand_in(planned):
    text = planned.dataset("weak")
    assert "123,037 rows, as published; not made yet" in text
    assert "at most 123,037 rows; not made yet" in text
    assert "image_text_similarity of pool (image_text_similarity_filter): not there yet" in text
    assert f"To make it: snakemake --configfile config/fake.yaml --cores all -- {planned.layout.root}" in text


def test_a_recipe_tells_its_training_and_each_seed(made):
    text = made.recipe("grounded")
    assert re.search(r"seed 1: TextVQA 0\.\d{4}, MMBench 0\.\d{4}", text)
    assert "seed 3: stopped after the probe" in text
    assert "2 seeds with the lowest loss go on" in text


def test_a_recipe_tells_cap_and_published_figures(planned):
    text = planned.recipe("best")
    assert "246,074 rows, as published, cut to 200,000 by the kit's random sample (seed 1024)" in text
    assert "published: 246,074 rows, MMBench 2.9804 times the baseline, TextVQA 1.0995" in text
    assert "Stage 1: 781 steps of 256" in text
    assert "To run it: make run CONFIG=config/fake.yaml RECIPE=best" in text


def test_results_of_another_definition_do_not_count(made):
    changed = made.configuration.model_dump(by_alias=True, exclude_none=True)
    changed["datasets"]["matched"]["filter"]["image_text_matching"]["min"] = 0.7
    configuration = Configuration.model_validate(changed)
    expected = Expected(configuration, made.layout, Plan(configuration))
    assert expected.rows("grounded").basis == Basis.MADE
    assert expected.rows("matched") == Rows(123037, Basis.PUBLISHED)
    assert expected.card("weak") is None, "its parent is another now"
    text = Explanation(configuration, "fake.yaml", made.layout).dataset("matched")
    assert "results there are of an earlier definition" in text


def test_an_unknown_name_is_answered_with_the_nearest(planned):
    with pytest.raises(UnknownNameError, match="no dataset `weka`; did you mean `weak`"):
        planned.dataset("weka")


@pytest.mark.parametrize(
    ("definition", "rows", "basis"),
    [
        ({"sample": {"fraction": 0.25}}, 102_500, Basis.RECKONED),
        ({"rank": {"by": "image_aesthetics", "top": 200_000, "skip": 300_000}}, 110_000, Basis.RECKONED),
        ({"repeat": 2}, 820_000, Basis.RECKONED),
        ({"filter": {"image_aesthetics": {"min": 0.5}}}, 410_000, Basis.AT_MOST),
        ({"union": ["matched"]}, 533_037, Basis.AT_MOST),
        ({"intersect": ["matched"]}, 123_037, Basis.AT_MOST),
        ({"resample": {"rows": 500_000}}, 500_000, Basis.RECKONED),
        ({"files": ["second"]}, 136_667, Basis.RECKONED),
        ({"sample": {"rows": 5}, "published_rows": 7}, 7, Basis.PUBLISHED),
        ({"recaption": {"captioner": "blip2"}}, 410_000, Basis.RECKONED),
    ],
)
def test_what_a_verb_makes_of_published_rows(tmp_path, definition, rows, basis):
    content = fake_configuration(tmp_path).model_dump(by_alias=True, exclude_none=True)
    content["datasets"]["new"] = {"from": "pool", **definition}
    content["recipes"]["whole"] = {"dataset": "pool", "published": {"rows": 410_000}}
    configuration = Configuration.model_validate(content)
    expected = Expected(configuration, Layout(tmp_path / "results"), Plan(configuration))
    assert expected.rows("new") == Rows(rows, basis)


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ({"filter": {"s": {"min": 0.01, "max": 0.28}, "w": {"max": 3, "any_or_all": "all"}}}, "s from 0.01 to 0.28"),
        ({"rank": {"by": {"s": 1, "m": 0.5}, "top": 5000, "skip": 1000}}, "s + 0.5·m the largest first, leave out"),
        ({"subtract": ["a", "b", "c"]}, "drop the rows whose id is in a, b and c"),
        ({"repeat": 4}, "all rows 4 times"),
        ({"splice": {"dataset": "better", "unmatched": "drop"}}, "not in better is dropped"),
        ({"dedup": {"by": "image", "near": True}}, "at most 4 of 64 bits"),
        ({"clean": {"min_words": 4, "max_words": 24}}, "4 to 24 words stay"),
    ],
)
def test_each_verb_has_its_sentence(tmp_path, definition, words):
    node = Dataset.model_validate({"from": "pool", **definition})
    assert words in node.verb.sentence(fake_configuration(tmp_path))

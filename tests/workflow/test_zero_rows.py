"""A dataset without rows: every verb, generator, analysis, export, recipe and page takes it, in plain words."""

from __future__ import annotations

import pytest
from pairs import configure_pairs, make_pool, pair, write_scores

from bettersynth.core.publish import read_json
from bettersynth.datasets.analysis import build_analysis
from bettersynth.datasets.build import build_dataset
from bettersynth.report.page import build_report
from bettersynth.sources.make import make_source_shard
from bettersynth.training.export import export_dataset
from bettersynth.training.trainset import PreflightError, build_trainset

VERBS = {
    "files": ["one"],
    "filter": {"words_num": {"min": 1}},
    "rank": {"by": {"words_num": 1, "similarity": 2}, "top": 3, "normalise": "min_max"},
    "sample": {"fraction": 0.5},
    "resample": {"rows": 5},
    "cluster": {"by": "meaning", "clusters": 2, "rows": 3},
    "union": ["empty_too"],
    "intersect": ["wordy"],
    "subtract": ["wordy"],
    "recaption": {"captioner": "any", "shards": 2},
    "redraw": {"redrawer": "any"},
    "splice": "wordy",
    "repeat": 3,
    "dedup": {"by": "text", "near": True},
    "clean": {"language": {"operator": "language"}},
}
FORMS = ("data_juicer", "llava", "parquet", "webdataset")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Ten records, and datasets of which a threshold leaves nothing."""
    folder = tmp_path_factory.mktemp("empty")
    ids = [f"r{number}" for number in range(10)]
    configuration = configure_pairs(
        folder,
        {"one": [pair(name, f"caption {name}") for name in ids]},
        operators={
            "similarity": {"op": "image_text_similarity_filter"},
            "words_num": {"op": "words_num_filter"},
            "meaning": {"op": "text_embedding"},
            "language": {"op": "language_id_score_filter"},
            "hash": {"op": "image_hash"},
        },
        captioners={"any": {"model": "any"}},
        redrawers={"any": {"model": "any"}},
        datasets={
            "wordy": {"from": "pool", "filter": {"words_num": {"min": 1}}},
            "empty": {"from": "pool", "filter": {"words_num": {"min": 1000}}},
            "empty_too": {"from": "pool", "filter": {"language.lang": {"one_of": ["xx"]}}},
            **{f"by_{verb}": {"from": "empty", verb: parameters} for verb, parameters in VERBS.items()},
            "several": {"from": "by_recaption", "recaption": {"captioner": "any", "keep_original": True}},
            "by_image": {"from": "empty", "dedup": {"by": "image", "near": True}},
            "rescored": {"from": "by_recaption", "filter": {"similarity": {"min": 0}}},
            "spliced": {"from": "wordy", "splice": "rescored"},
        },
        analyses={"figures": {"dataset": "empty", "operators": ["similarity", "words_num"]}},
        recipes={"nothing": {"dataset": "empty"}},
        exports={"empty": list(FORMS)},
    )
    layout, plan = make_pool(configuration, folder)
    write_scores(layout, plan, "words_num", {name: {"num_words": place + 2} for place, name in enumerate(ids)})
    write_scores(layout, plan, "language", {name: {"lang": "en", "lang_score": 0.9} for name in ids})
    return configuration, layout, plan


@pytest.fixture(scope="module")
def made(world):
    """Rows of every dataset, its generated shards made before it; no model of that name is there to be loaded."""
    configuration, _, plan = world
    rows = {}
    for name in configuration.datasets:
        for shard in plan.shards(name) if name in plan.generators else ():
            make_source_shard(name, shard, *world)
        rows[name] = build_dataset(name, *world)["rows"]
    return rows


def test_every_verb_and_generator_takes_no_rows(made):
    assert {name for name, rows in made.items() if rows} == {"wordy", "spliced"}


def test_an_empty_filter_says_which_scores_it_met(world, caplog):
    for name in ("empty", "empty_too"):
        build_dataset(name, *world)
    assert "  words_num.num_words is from 2 to 11; asked for: min 1000" in caplog.messages
    assert "  language.lang is en (10); kept: xx" in caplog.messages


def test_analysis_exports_and_page_take_no_rows(world, made):
    configuration, layout, plan = world
    assert build_analysis("figures", *world)["rows"] == 0
    for form in FORMS:
        assert export_dataset("empty", form, *world)["rows"] == 0
        assert read_json(layout.export("empty", form) / "card.json")["files"]
    without = configuration.model_copy(update={"recipes": {}})
    assert "empty" in build_report(without, layout, plan).read_text()


def test_a_recipe_without_rows_is_refused_before_it_trains(world, made):
    with pytest.raises(PreflightError, match="dataset `empty` has no rows, so there is nothing to train on") as refused:
        build_trainset("nothing", *world)
    assert "make explain DATASET=empty" in str(refused.value)

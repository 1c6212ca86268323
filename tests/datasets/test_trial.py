"""A dry run counts what verbs leave of the scores that are there: foretold, then made."""

from __future__ import annotations

import copy
import json
import re

import pytest
from workflow import CONFIGURATION, Run

from miniature.render import render_world

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> Run:
    """A pool and the scores that its datasets read."""
    folder = tmp_path_factory.mktemp("scored")
    render_world(folder / "data", records=60, second_records=12, textvqa=6, mmbench=4, instructions=16)
    keys = ("pool", "models", "captioners", "trainset")
    configuration = {key: copy.deepcopy(CONFIGURATION[key]) for key in keys if key in CONFIGURATION}
    configuration["operators"] = {"words_num": {"op": "words_num_filter"}}
    configuration["datasets"] = {
        "wordy": {"from": "pool", "filter": {"words_num": {"min": 8}}},
        "first": {"from": "pool", "files": ["stage_1"]},
        "wordy_first": {"from": "wordy", "intersect": ["first"]},
        "half": {"from": "wordy_first", "sample": {"fraction": 0.5, "seed": 1}},
        "rewritten": {"from": "half", "recaption": {"captioner": "blip2", "seed": 0, "shards": 2}},
        "scored_again": {"from": "rewritten", "filter": {"words_num": {"min": 3}}},
        "again": {"from": "scored_again", "recaption": {"captioner": "blip2", "seed": 1}},
    }
    run = Run(folder, configuration)
    run.snakemake("--", "pool", "results/small/scores/pool/words_num.parquet")
    return run


@pytest.fixture
def run(scored, tmp_path) -> Run:
    return scored.copy(tmp_path / "elsewhere")


def foretold(run: Run, what: str) -> str:
    """The amount that a dry run tells of a kind of work."""
    output = run.snakemake("--dry-run", "--logger", "cost", "--", "datasets").stdout
    found = re.search(rf"^  {re.escape(what)} +\d+ +(\S+) rows", output, re.MULTILINE)
    assert found is not None, output
    return found[1]


def made(run: Run, dataset: str) -> int:
    run.snakemake("--", f"results/small/datasets/{dataset}/card.json")
    return json.loads((run.results / "datasets" / dataset / "card.json").read_text())["rows"]


def test_rows_are_counted_where_scores_are_there(run):
    amount = foretold(run, "recaption: rewritten")
    assert 0 < int(amount) < 30, "neither at most the pool nor about half of it"
    assert not (run.results / "datasets").exists(), "a dry run makes nothing"
    assert made(run, "half") == int(amount)
    assert foretold(run, "recaption: rewritten") == amount


def test_a_filter_by_scores_that_are_not_there_is_at_most(run):
    assert foretold(run, "recaption: again").startswith("≤"), "it waits for captions that are not written"


def test_scores_by_another_operator_do_not_count(run):
    other = {"words_num": {"op": "words_num_filter", "parameters": {"text": "caption"}}}
    run.configure(run.configuration | {"operators": other})
    assert foretold(run, "recaption: rewritten").startswith("≤")


def test_scores_of_other_records_do_not_count(run):
    raw = run.folder / "data" / "mgm_pretrain_stage_1.jsonl"
    raw.write_text(raw.read_text().replace(" a ", " one ", 1))
    assert foretold(run, "recaption: rewritten").startswith("≤")

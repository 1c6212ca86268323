"""Through the real Snakemake: filters that only Data-Juicer knows, and an operator that is one file of a plug-in."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from PIL import Image
from stock_data_juicer import executor_stats
from workflow import ROOT, Run

from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json
from bettersynth.core.records import POOL, read_records
from bettersynth.core.tables import read_table
from miniature.render import render_world

pytestmark = pytest.mark.workflow

TOYS = ROOT / "tests" / "toys"
TOY = "toy_operator"
CONFIGURATION = {
    "pool": {
        "files": [{"name": "stage_1", "path": "data/mgm_pretrain_stage_1.jsonl", "shards": 2}],
        "images": "data",
        "restore": ["data/stage_1.json"],
    },
    "operators": {
        "special": {"op": "special_characters_filter"},
        "longest_line": {"op": "maximum_line_length_filter"},
        "toy": {"op": TOY, "parameters": {"letters": "ae"}},
    },
    "datasets": {
        "plain": {"from": "pool", "filter": {"special": {"max": 0.5}, "longest_line": {"min": 20}}},
        "bright": {"from": "plain", "filter": {"toy.brightness": {"min": 90}}},
        "lettered": {"from": "bright", "rank": {"by": "toy.vowels", "top": 5}},
    },
    "analyses": {"three": {"dataset": "bright", "operators": ["special", "longest_line", "toy.vowels"]}},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """Scores, datasets and the report of a small pool."""
    folder = tmp_path_factory.mktemp("named")
    render_world(folder / "data", records=40, second_records=4, textvqa=4, mmbench=2, instructions=4, faults=False)
    made = Run(folder, CONFIGURATION)
    made.snakemake(paths=[TOYS])
    return made


def scores(run: Run, operator: str):
    """Id -> stats of the pool."""
    rows = read_table(Layout(run.results).scores(POOL, operator)).to_pylist()
    return {row.pop("id"): row for row in rows}


def records(run: Run):
    """The pool's records."""
    shards = [Layout(run.results).records(POOL, f"stage_1-000{number}") for number in range(2)]
    return [record for shard in shards for record in read_records(shard)]


@pytest.mark.parametrize(
    ("name", "keep"), [("special", {"min_ratio": 0.0, "max_ratio": 1.0}), ("longest_line", {"min_len": 0})]
)
def test_a_filter_that_no_module_describes_runs_by_name_alone(run, name, keep, tmp_path):
    op = CONFIGURATION["operators"][name]["op"]
    theirs = executor_stats([{op: keep}], records(run), run.folder / "data", tmp_path, {})

    ours = scores(run, name)
    assert ours.keys() == theirs.keys() and len(ours) == 40
    for record, stats in ours.items():
        assert stats == pytest.approx(theirs[record], abs=1e-9)
    assert len({str(stats) for stats in ours.values()}) > 1


def test_a_plug_ins_operator_goes_all_the_way_to_the_report(run):
    found = scores(run, "toy")
    for record in records(run):
        [path] = record.images
        grey = np.asarray(Image.open(run.folder / "data" / path).convert("L"))
        assert found[record.id]["vowels"] == record.text.count("a") + record.text.count("e")
        assert found[record.id]["brightness"] == [pytest.approx(grey.mean())]
    assert read_json(Layout(run.results).scores_card(POOL, "toy"))["parameters"] == {"op": TOY, "letters": "ae"}
    page = (run.results / "report" / "index.html").read_text(encoding="utf-8")
    assert "brightness" in page and "vowels" in page and "longest_line" in page


def test_a_plug_ins_operator_is_one_file():
    command = ["git", "grep", "--untracked", "--name-only", "--word-regexp", TOY, "--", ":!tests/**/test_*.py"]
    places = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert places == ["tests/toys/bettersynth_plugin_toy_operator.py"]

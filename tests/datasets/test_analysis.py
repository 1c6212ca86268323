"""Analyses: the numbers of the real `dj-analyze`, two datasets beside each other, and the table for other tools."""

import csv
import json
import os
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from fake_results import write_fake_results
from pairs import configure_pairs, make_pool, write_scores
from stock_data_juicer import analyzed

from bettersynth.core.records import POOL, read_records
from bettersynth.datasets.analysis import analyse, changes
from bettersynth.datasets.scores_table import write_scores_table
from bettersynth.report.analysis import write_analysis
from miniature.render import render_world

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = Path(os.environ.get("CONTEST_SAMPLE", ROOT.parent / "shared" / "data" / "contest-sample"))
OPERATORS = {
    "words": ("words_num_filter", {"min_num": 0}),
    "repeats": ("word_repetition_filter", {"rep_len": 1, "max_ratio": 1.0}),
    "shape": ("image_shape_filter", {}),
    "size": ("image_size_filter", {"max_size": "1TB"}),
    "aspect": ("image_aspect_ratio_filter", {"max_ratio": 1000}),
}
NAMES = {"image_width": "shape.image_width", "image_height": "shape.image_height"}
NAMES |= {"num_words": "words", "word_rep_ratio": "repeats", "image_sizes": "size", "aspect_ratios": "aspect"}


def _raw(where, folder):
    """The JSONL of raw pairs and the folder that their images lie in."""
    if where == "contest sample":
        return SAMPLE / "pool.jsonl", SAMPLE
    render_world(folder / "world", 90, 3, textvqa=4, mmbench=4, instructions=4, faults=True)
    return folder / "world" / "mgm_pretrain_stage_1.jsonl", folder / "world"


@pytest.mark.models
@pytest.mark.parametrize("where", ["miniature", "contest sample"])
def test_figures_are_those_of_dj_analyze(where, tmp_path):
    if where == "contest sample" and not SAMPLE.is_dir():
        pytest.skip("set CONTEST_SAMPLE to a folder with pool.jsonl and images/")
    raw, images = _raw(where, tmp_path)
    lines = [json.loads(line) for line in raw.read_text(errors="replace").splitlines() if _whole(line)]
    pool = {"images": str(images), "max_quarantined": 1.0}
    operators = {name: {"op": op} for name, (op, _) in OPERATORS.items()}
    configuration = configure_pairs(tmp_path, {"raw": lines}, operators=operators, pool=pool)
    layout, plan = make_pool(configuration, tmp_path)
    records = [record for shard in plan.shards(POOL) for record in read_records(layout.records(POOL, shard))]
    (tmp_path / "stock").mkdir()
    process = [{op: arguments} for op, arguments in OPERATORS.values()]
    stats, overall, correlations = analyzed(process, records, images, tmp_path / "stock")
    for name in OPERATORS:
        mine = {stat for stat, key in NAMES.items() if key.partition(".")[0] == name}
        of_records = {key: {stat: found[stat] for stat in mine} for key, found in stats.items()}
        write_scores(layout, plan, name, of_records)

    ours = analyse(POOL, layout, plan)
    theirs = pd.read_csv(overall, index_col=0)
    assert set(theirs.columns) == set(NAMES) and ours["rows"] == len(records) > 60
    for stat, key in NAMES.items():
        for figure in ("count", "mean", "std", "min", "25%", "50%", "75%", "max"):
            assert ours["scores"][key][figure] == pytest.approx(float(theirs[stat][figure]), rel=1e-9), (key, figure)
    matrix = pd.DataFrame(ours["correlation"]["matrix"], *[ours["correlation"]["keys"]] * 2, dtype=float)
    expected = pd.read_csv(correlations, index_col=0).rename(index=NAMES, columns=NAMES)
    np.testing.assert_allclose(matrix.loc[expected.index, expected.columns], expected, atol=1e-9)


def _whole(line):
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """Results with a rewritten source; the folder that commands run in."""
    folder = tmp_path_factory.mktemp("fake")
    before = Path.cwd()
    os.chdir(folder)
    yield write_fake_results(Path(), training=False)
    os.chdir(before)


def test_two_datasets_beside_each_other(fake):
    _, layout, plan = fake
    found = changes("weak", "rewritten", layout, plan)
    table = pd.read_parquet(layout.scores("pool", "image_text_similarity")).set_index("id")["image_text_similarity"]
    after = pd.read_parquet(layout.scores("rewritten", "image_text_similarity")).set_index("id")
    after = after["image_text_similarity"].str[0]
    before = table.str[0][after.index]
    assert found["pairs"] == len(after)
    change = found["scores"]["image_text_similarity"]
    assert change["before"] == pytest.approx(before.mean()) and change["after"] == pytest.approx(after.mean())
    assert change["rose"] == pytest.approx((after > before).mean()) and change["rose"] > 0.5


def test_an_analysis_is_written_as_tables_and_figures_that_do_not_change(fake):
    _, layout, plan = fake
    _, written = write_analysis(["weak", "rewritten"], layout, plan)
    bytes_before = [path.read_bytes() for path in written]
    assert write_analysis(["weak", "rewritten"], layout, plan)[1] == written
    assert [path.read_bytes() for path in written] == bytes_before
    assert {path.suffix for path in written} == {".json", ".csv", ".svg", ".pdf"}
    scores = list(csv.DictReader((written[0].parent / "scores.csv").open()))
    assert {line["dataset"] for line in scores} == {"weak", "rewritten"}
    whole = analyse("weak", layout, plan)
    line = next(line for line in scores if (line["dataset"], line["score"]) == ("weak", "words_num"))
    assert float(line["50%"]) == whole["scores"]["words_num"]["50%"]
    bins = [line for line in csv.DictReader((written[0].parent / "histograms.csv").open()) if line["dataset"] == "weak"]
    assert sum(int(line["count"]) for line in bins if line["score"] == "words_num") == whole["rows"]


def test_pandas_and_duckdb_open_the_table_of_scores(fake):
    configuration, layout, plan = fake
    write_scores_table(layout, plan)
    table = pd.read_parquet(layout.scores_table)
    assert set(configuration.operators) < set(table.columns)
    assert table["source"].value_counts()["pool"] == 600
    assert all(Path(path).is_file() for path in table["image"])
    asked = f"SELECT source, count(*), avg(image_text_similarity) FROM '{layout.scores_table}' GROUP BY source"
    found = {source: (rows, mean) for source, rows, mean in duckdb.sql(asked).fetchall()}
    pool = table[table["source"] == "pool"]
    assert found["pool"] == (600, pytest.approx(pool["image_text_similarity"].mean()))
    assert len(found) == 2 and found["rewritten"][0] > 20

"""The report in a real Chromium: readable, silent, and every figure to be had as a file."""

import csv
import json
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import chromium, needs_chromium
from fake_results import write_fake_results

from bettersynth.core.tables import write_table
from bettersynth.report.early_loss import build_early_loss
from bettersynth.report.leaderboard import build_leaderboard
from bettersynth.report.page import build_report

EVIL = "</script></style><img src=http://127.0.0.1:9/x onerror=alert(1)> {{ 7*7 }} \u202egnal"
pytestmark = needs_chromium


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results whose captions are code elsewhere."""
    made = write_fake_results(tmp_path_factory.mktemp("page"))
    _, layout, plan = made
    for shard in plan.shards("pool"):
        table = pq.read_table(layout.records("pool", shard))
        texts = [text.replace("a ", f"{EVIL} a ", 1) for text in table["text"].to_pylist()]
        table = table.set_column(table.schema.get_field_index("text"), "text", pa.array(texts))
        write_table(layout.records("pool", shard), table.replace_schema_metadata(None))
    build_leaderboard(*made[:2])
    build_early_loss(*made[:2])
    return made


@pytest.fixture(scope="module")
def looked(results):
    with chromium(viewport={"width": 360, "height": 740}) as looked:
        looked.open(build_report(*results).resolve())
        yield looked


def saved(page, button, tmp_path):
    with page.expect_download() as waiting:
        page.locator(button).first.click()
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_it_is_readable_on_a_telephone_in_both_schemes_by_keyboard_and_screen_reader(looked):
    assert looked.width <= 360
    for scheme in ("light", "dark"):
        looked.page.emulate_media(color_scheme=scheme)
        assert looked.found_by_axe() == []
    looked.page.keyboard.press("Tab")
    assert looked.page.evaluate("() => document.activeElement.tagName") in ("A", "SUMMARY")


def test_captions_are_text_and_nothing_is_asked_for(looked):
    assert EVIL.split(" ", 1)[0] in looked.page.inner_text("#examples")
    assert "{{ 7*7 }}" in looked.page.inner_text("#examples")
    assert looked.page.locator("[onerror], img[src^=http]").count() == 0
    assert looked.complaints == [] and looked.asked_elsewhere == []


def test_figures_and_their_numbers_are_saved(looked, results, tmp_path):
    configuration, layout, _ = results
    page = looked.page
    drawn = saved(page, '#scores button[aria-label^="SVG of Distribution of image_text_similarity"]', tmp_path)
    assert drawn.name == "image_text_similarity.image_text_similarity.svg"
    root = ElementTree.parse(drawn).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and "fill:rgb" in drawn.read_text()
    numbers = saved(page, '#scores button[aria-label^="CSV of Distribution of image_text_similarity"]', tmp_path)
    lines = list(csv.DictReader(numbers.open()))
    assert sum(int(line["pool"]) for line in lines) == 600
    ledger = saved(page, '#datasets button[aria-label="CSV of Funnel of baseline"]', tmp_path)
    assert list(csv.reader(ledger.open()))[-1][0] == "training file"
    flows = saved(page, '#datasets button[aria-label="CSV of Datasets and their parents"]', tmp_path)
    assert {line["dataset"] for line in csv.DictReader(flows.open())} == set(configuration.datasets)
    losses = saved(page, '#training button[aria-label="CSV of Loss of best by step, pretrain"]', tmp_path)
    logged = [json.loads(line) for line in (layout.pretrain("best", 1) / "log.jsonl").open()]
    assert float(next(csv.DictReader(losses.open()))["seed 1"]) == logged[0]["loss"]


def test_seeds_that_were_stopped_end_in_a_cross(looked):
    marked = "(all) => all.filter((one) => one.querySelector('path.end'))"
    told = ".map((one) => one.querySelector('title').textContent)"
    names = looked.page.locator("#training svg").evaluate_all(marked + told)
    assert {name.split()[2] for name in names} == {"grounded", "abandoned"}

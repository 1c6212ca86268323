"""The explorer in a real Chromium: what it counts is what the workflow keeps, and data stay text."""

import copy
import http.client
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from browser import chromium, needs_chromium
from pairs import write_image
from workflow import CONFIGURATION, Run

from bettersynth.configuration import load
from bettersynth.configuration.threshold import Threshold
from bettersynth.core.publish import read_json
from bettersynth.core.records import IMAGE_TOKEN, text_of
from bettersynth.datasets.values import values_of
from bettersynth.datasets.verbs.filter import kept
from bettersynth.report.explorer import codes
from bettersynth.report.explorer.page import Explorer
from bettersynth.report.explorer.serve import Server
from bettersynth.workflow.run import Run as OfConfiguration
from miniature.render import render_world

EVIL = "</script><img src=http://127.0.0.1:9/x onerror=alert(1)><script>alert(2)</script>"
BIDI = "\u202egnipoleved\u202c {{ 7*7 }} '\"`${alert(3)}`"
OPERATORS = {
    "words_num": {"op": "words_num_filter"},
    "repeats": {"op": "word_repetition_filter", "parameters": {"rep_len": 1}},
    "shape": {"op": "image_shape_filter"},
    "size": {"op": "image_size_filter"},
}
DATASETS = {
    "wordy": {"from": "pool", "filter": {"words_num": {"min": 6}}},
    "square": {"from": "wordy", "filter": {"shape.image_width": {"min": 90}, "shape.image_height": {"min": 90}}},
    "strict": {"from": "wordy", "filter": {"size": {"min": 1500, "any_or_all": "all"}}},
    "tidy": {"from": "wordy", "clean": True},
    "terse": {"from": "tidy", "filter": {"words_num": {"max": 12}}},
    "twice": {"from": "square", "repeat": 2},
}
KEPT = "() => Number(document.getElementById('kept-rows').textContent.replaceAll(',', ''))"


def _hostile(folder):
    """Records whose id, caption, path and picture's name are code elsewhere, and some of several pictures."""
    name = "images/\"><svg onload=alert(4)>'&.png"
    write_image(folder / name, (120, 100))
    write_image(folder / "images" / "wide.png", (400, 20))
    write_image(folder / "images" / "high.png", (20, 400))
    write_image(folder / "images" / "large.png", (200, 200))
    lines = [{"id": f"{EVIL}{n}", "text": text_of(f"{text} one two three four"), "images": [name]}
             for n, text in enumerate((EVIL, BIDI))]  # fmt: skip
    for n, images in enumerate((["wide", "high"], ["wide", "large"], ["high", "large", "wide"])):
        text = "".join(text_of(f"picture {m} of a set of several") for m in range(len(images)))
        assert text.count(IMAGE_TOKEN) == len(images)
        lines.append({"id": f"set{n}", "text": text, "images": [f"images/{image}.png" for image in images]})
    with (folder / "mgm_pretrain_stage_1.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Scores and datasets of a small world with hostile records, by the real workflow; tests stand in its folder."""
    folder = tmp_path_factory.mktemp("explorer")
    render_world(folder / "data", records=60, second_records=6, textvqa=4, mmbench=4, instructions=4, faults=False)
    _hostile(folder / "data")
    content = copy.deepcopy(CONFIGURATION)
    content |= {"operators": OPERATORS, "datasets": DATASETS, "models": {}, "captioners": {}, "report": {}}
    content |= {"analyses": {}, "recipes": {}, "exports": {}, "training": None, "evaluation": None}
    made = Run(folder, content)
    made.snakemake("scores", "datasets")
    before = Path.cwd()
    os.chdir(folder)
    yield made
    os.chdir(before)


@pytest.fixture(scope="module")
def explorer(run):
    return Explorer(OfConfiguration.of(load("small.yaml"), "small.yaml"), pictures=40)


@pytest.fixture(scope="module")
def looked(explorer):
    """One page for all tests that look."""
    path = explorer.write().resolve()
    with chromium(has_touch=True, color_scheme="light") as looked:
        page = looked.open(path)
        page.wait_for_function("() => document.documentElement.dataset.ready")
        yield looked


@pytest.fixture
def page(looked):
    """The page without any bound."""
    looked.page.set_viewport_size({"width": 1200, "height": 900})
    choose(looked.page, "#from", "pool")
    looked.page.click("#clear")
    return looked.page


def choose(page, control, value):
    page.select_option(control, value)
    page.wait_for_function("([c, v]) => document.querySelector(c).value === v", arg=[control, value])
    page.evaluate("() => new Promise((done) => setTimeout(done, 60))")


def values(run, operator, stat, source="pool"):
    table = pq.read_table(run.results / "scores" / source / f"{operator}.parquet")
    return table["id"].to_pylist(), values_of(stat, table[stat])


def drag(page, score, side, share):
    """Drag a handle with the mouse to a share of its chart's width."""
    handle = page.locator(f'[data-score="{score}"] .handle.{side}')
    handle.scroll_into_view_if_needed()
    box, area = handle.bounding_box(), page.locator(f'[data-score="{score}"] .plot').bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(area["x"] + share * area["width"], area["y"] + 60, steps=5)
    page.mouse.up()


@needs_chromium
@pytest.mark.workflow
def test_a_bound_that_was_dragged_keeps_what_the_workflow_keeps(run, page):
    everything = page.evaluate(KEPT)
    drag(page, "repeats", "max", 0.6)
    after_one = page.evaluate(KEPT)
    page.focus('[data-score="words_num"] .handle.min')
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.fill('[data-score="shape.image_width"] input[aria-label^=lower]', "90")
    page.keyboard.press("Enter")
    page.fill('[data-score="shape.image_height"] input[aria-label^=lower]', "90")
    page.keyboard.press("Tab")
    shown = page.evaluate(KEPT)
    assert everything > after_one > shown > 5
    page.click("#copy")
    page.wait_for_function("() => document.getElementById('copied').textContent === 'copied'")
    dataset = yaml.safe_load(page.input_value("#text"))
    assert set(dataset["chosen"]["filter"]) == {"repeats", "words_num", "shape.image_width", "shape.image_height"}
    run.configure({**run.configuration, "datasets": {**run.configuration["datasets"], **dataset}})
    run.snakemake("results/small/datasets/chosen/card.json")
    assert read_json(run.results / "datasets" / "chosen" / "card.json")["rows"] == shown


@needs_chromium
@pytest.mark.workflow
@pytest.mark.parametrize("dataset", DATASETS)
def test_every_dataset_opens_as_a_state_with_its_own_rows(run, page, dataset):
    choose(page, "#open", dataset)
    assert page.evaluate(KEPT) == read_json(run.results / "datasets" / dataset / "card.json")["rows"]
    if "filter" in DATASETS[dataset]:
        page.fill("#name", dataset)
        assert yaml.safe_load(page.input_value("#text")) == {dataset: DATASETS[dataset]}
        page.fill("#name", "chosen")


@needs_chromium
@pytest.mark.workflow
def test_sheets_show_the_nearest_on_both_sides(run, page, explorer):
    ids, sizes = values(run, "size", "image_sizes")
    with_picture = {explorer.contents.records["id"][row].as_py() for row in explorer.contents.sample}
    spans = zip(ids, sizes.starts, sizes.starts[1:], strict=False)
    decides = {name: max(sizes.flat[start:end]) for name, start, end in spans if name in with_picture}
    bound = float(np.median(list(decides.values())))
    page.fill('[data-score="size"] input[aria-label^=lower]', str(bound))
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelectorAll('#sheet-kept .pair img').length > 3")
    order = sorted(decides, key=lambda name: abs(decides[name] - bound))
    for side, inside in (("kept", True), ("dropped", False)):
        shown = page.locator(f"#sheet-{side} .pair .id").all_inner_texts()
        expected = [name for name in order if (decides[name] >= bound) == inside][:8]
        assert len(shown) == len(expected) > 1
        assert [decides[name] for name in shown] == [decides[name] for name in expected]
    drawn = "() => [...document.querySelectorAll('.sheet img')].every((image) => image.naturalWidth > 20)"
    page.wait_for_function(drawn)


@needs_chromium
@pytest.mark.workflow
def test_search_finds_ids_and_words_and_says_what_drops_them(page):
    page.fill('[data-score="words_num"] input[aria-label^=lower]', "99")
    page.keyboard.press("Enter")
    page.fill("#query", "SET2")
    page.wait_for_selector("#results .pair")
    assert "set2" in page.inner_text("#results") and "dropped by words_num" in page.inner_text("#results")
    page.fill("#query", "several set picture")
    page.wait_for_function("() => document.querySelectorAll('#results .pair').length >= 3")


@needs_chromium
@pytest.mark.workflow
def test_hostile_records_are_text_and_nothing_else(page, looked):
    page.fill("#query", "onerror=alert")
    page.wait_for_function("() => document.getElementById('results').innerText.includes('onerror=')")
    found = page.inner_text("#results")
    assert EVIL in found and f"{EVIL}0" in found
    page.fill("#query", "7*7")
    page.wait_for_function("() => document.getElementById('results').innerText.includes('7*7')")
    assert "{{ 7*7 }}" in page.inner_text("#results")
    assert page.locator("img[src^=http], svg, iframe, object, [onerror], [onload]").count() == 0
    assert page.locator("script").count() == 2 + page.locator("script[id^=block]").count()
    assert looked.complaints == [] and looked.asked_elsewhere == []


@needs_chromium
@pytest.mark.workflow
def test_it_is_usable_at_360_pixels_by_touch_and_in_the_dark(page, looked):
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 360, "height": 740})
    assert looked.width <= 360
    before = page.evaluate(KEPT)
    handle = page.locator('[data-score="words_num"] .handle.min')
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    assert box["width"] >= 24 and box["height"] >= 24
    session = page.context.new_cdp_session(page)
    point = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
    session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{**point, "x": point["x"] + 90}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_function(f"() => ({KEPT})() < {before}")
    assert looked.width <= 360
    assert looked.found_by_axe() == []
    page.emulate_media(color_scheme="light")
    assert looked.found_by_axe() == []
    assert looked.complaints == [] and looked.asked_elsewhere == []


@pytest.mark.workflow
def test_pictures_are_served_to_who_knows_the_token_and_to_nobody_else(explorer):
    with Server(explorer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = urlsplit(server.address)

        def ask(path, host=address.netloc, method="GET"):
            connection = http.client.HTTPConnection(address.netloc, timeout=20)
            connection.request(method, path, headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type"), answer.read()

        assert address.hostname == "127.0.0.1" and len(server.token) >= 24
        status, kind, body = ask(address.path)
        assert (status, kind) == (200, "text/html; charset=utf-8") and b'"served": true' in body
        rows = explorer.contents.records.num_rows
        status, kind, body = ask(f"{address.path}picture/{rows - 1}")
        assert (status, kind) == (200, "image/jpeg") and body.startswith(b"\xff\xd8")
        for refused in (
            "/", "/x/", f"/{server.token[:-1]}/", f"{address.path}picture/{rows}", f"{address.path}picture/-1",
            f"{address.path}picture/../../small.yaml", f"{address.path}small.yaml", f"{address.path}picture/1e3",
        ):  # fmt: skip
            assert ask(refused)[0] == 404, refused
        assert ask(address.path, host="elsewhere.example")[0] == 404, "a name of another that leads here"
        assert ask(address.path, method="POST")[0] == 501
        server.shutdown()


@pytest.mark.workflow
def test_records_that_are_elsewhere_are_told_in_a_sentence(run, tmp_path):
    elsewhere = run.copy(tmp_path / "copy")
    command = [sys.executable, "-m", "bettersynth", "explore", "--config", "small.yaml"]
    next((elsewhere.results / "pool" / "records").glob("*.parquet")).unlink()
    said = subprocess.run(command, cwd=elsewhere.folder, capture_output=True, text=True, check=False)
    assert said.returncode == 1 and "is not on this machine" in said.stderr and "Traceback" not in said.stderr


def test_codes_decide_closed_intervals_exactly():
    """Drawn scores with ties, steps and tails; several values a row, none, and some that are no numbers."""
    chance = np.random.default_rng(0)
    flat = np.concatenate([chance.normal(0.32, 0.04, 30_000), 1 - chance.exponential(1e-4, 30_000), [np.nan, np.inf]])
    counts = chance.choice([0, 1, 1, 1, 2, 3], 40_000)
    starts = np.concatenate([[0], np.cumsum(counts)])
    values = codes.Values("a.b", flat[: starts[-1]], starts)
    coded = codes.encode(values, [0.9984, 0.32])
    assert not coded.complete and len(coded.edges) < 32_000 and {0.9984, 0.32, 0.28} <= set(coded.edges)
    every = codes.number_codes(values.flat, coded.edges)
    for low, high in chance.choice(len(coded.edges), (200, 2)):
        inside = (every >= 2 * low + 1) & (every <= 2 * high + 1)
        expected = (values.flat >= coded.edges[low]) & (values.flat <= coded.edges[high])
        assert np.array_equal(inside, expected)
    rows = kept(values, Threshold(min=0.9984))
    first = coded.first >= 2 * np.searchsorted(coded.edges, 0.9984) + 1
    single = values.counts == 1
    assert np.array_equal(rows[single], (first & (coded.first < codes.NOT_SCORED))[single])
    assert coded.several.tolist() == np.flatnonzero(values.counts > 1).tolist()


def test_bounds_are_as_short_as_they_can_be():
    low, high = np.array([0.28341, 1499.2, -0.5, 0.0]), np.array([0.28359, 1500.7, -0.25, 1e-7])
    assert codes.shortest(low, high).tolist() == [0.2835, 1500.0, -0.3, 1e-7]

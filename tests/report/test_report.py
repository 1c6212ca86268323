"""The page: self-contained, complete, and with the numbers of the ledgers."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_results import fake_configuration, write_fake_results

from bettersynth.configuration import Configuration, read_yaml
from bettersynth.core.layout import Layout
from bettersynth.core.names import StatKey
from bettersynth.core.publish import read_json, write_json
from bettersynth.core.tables import write_table
from bettersynth.datasets.analysis import bin_edges, changes
from bettersynth.datasets.ledger import read_dropped, reason_of, write_dropped
from bettersynth.report import examples, history
from bettersynth.report.charts import Node, graph, number, thin, ticks
from bettersynth.report.distributions import distribution
from bettersynth.report.early_loss import build_early_loss
from bettersynth.report.flow import flow
from bettersynth.report.leaderboard import build_leaderboard
from bettersynth.report.page import build_report
from bettersynth.report.truth import filter_quality
from bettersynth.workflow.plan import Plan


class Elements(HTMLParser):
    """Tags with attributes, ids, link targets, and the text of the page."""

    VOID = frozenset({"meta", "link", "img", "br", "wbr"})

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag != "wbr":
            self.text.append(" ")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"
        self.text.append(" ")

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "title", "script"):
            self.text.append(data)


def _build(folder, **options):
    configuration, layout, plan = write_fake_results(folder, **options)
    build_leaderboard(configuration, layout)
    build_early_loss(configuration, layout)
    path = build_report(configuration, layout, plan)
    return configuration, layout, plan, path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return _build(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(built):
    return built[3]


@pytest.fixture(scope="module")
def elements(page):
    return Elements(page)


def _words(elements):
    return " ".join("".join(elements.text).split())


def test_of_two_stats_of_one_operator_each_has_its_own_dropped_rows(tmp_path):
    rows = pa.table({"id": ["narrow", "low"], "source": ["pool", "pool"]})
    reasons = ["shape.image_width below 224", "shape.image_height below 224"]
    write_table(tmp_path / "older.parquet", rows.append_column("reason", [reasons]))
    parts = {"key": ["shape.image_width", "shape.image_height"], "bound": ["below 224"] * 2, "value": ["200", "100"]}
    ours = pa.table({**dict(zip(rows.column_names, rows.columns, strict=True)), **parts})
    write_dropped(tmp_path / "ours.parquet", ours, "filter")
    bound = examples.Bound("large", StatKey("shape", "image_width"), "any", "min", 224)
    for name in ("older", "ours"):
        dropped = read_dropped(tmp_path / f"{name}.parquet")
        assert [reason_of(row).words for row in dropped.to_pylist()] == reasons
        assert examples._dropped_by(bound, dropped)["id"].to_pylist() == ["narrow"]
        low = bound._replace(key=StatKey("shape", "image_height"))
        assert examples._dropped_by(low, dropped)["id"].to_pylist() == ["low"]
        assert examples._dropped_by(bound._replace(key=StatKey("shape")), dropped).num_rows == 2


def test_rows_unlike_the_published_ones_are_called_so(elements):
    assert "◇ 246,074, more than 2 % off" in _words(elements)


def test_quartiles_stand_beside_the_published_ones(built, elements):
    _, layout, _, _ = built
    words = _words(elements)
    median = read_json(layout.analysis("quartiles"))["stats"]["image_text_similarity"]["quartiles"][1]
    assert "quartiles Q3, of better" in words
    assert f"{median:.3g}"[:4] in words
    assert "published – – – 0.291 0.318 0.344" in words


def test_the_page_loads_nothing(page, elements):
    for tag, attributes in elements.tags:
        assert tag not in ("iframe", "object", "embed")
        for name in ("src", "srcset", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
    assert "url(" not in page
    assert "@import" not in page


def test_elements_are_closed_ids_unique_and_links_lead_somewhere(elements):
    assert elements.open == []
    ids = [attributes["id"] for _, attributes in elements.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {attributes["href"] for tag, attributes in elements.tags if tag == "a"}
    targets = {link[1:] for link in links if link.startswith("#")}
    assert targets <= set(ids)


def test_images_have_alternatives_and_charts_titles(page, elements):
    images = [attributes for tag, attributes in elements.tags if tag == "img"]
    assert images
    assert all(attributes["alt"] for attributes in images)
    assert page.count("<svg") == page.count("<svg class=") == len(re.findall(r"<svg [^>]*><title>[^<]+</title>", page))


def test_every_recipe_and_dataset_appears(built, elements):
    configuration = built[0]
    ids = {attributes.get("id") for _, attributes in elements.tags}
    words = _words(elements)
    for recipe in configuration.recipes:
        assert {f"recipe-{recipe}", f"funnel-{recipe}"} <= ids
    assert all(dataset in words for dataset in configuration.datasets)


def test_numbers_are_those_of_the_ledgers(built, elements):
    configuration, layout, _, _ = built
    words = _words(elements)
    for name in configuration.datasets:
        card = read_json(layout.dataset_card(name))
        for reason, count in card["ledger"]["dropped"].items():
            assert f"{count:,} {reason}" in words
    for file in configuration.pool.files:
        ledger = read_json(layout.file_ledger(file.name))
        assert ledger["lines"] == ledger["rows"] + sum(ledger["quarantined"].values())
        assert f"{ledger['lines']:,} {ledger['rows']:,}" in words
        for reason, count in ledger["quarantined"].items():
            assert f"{count:,} {reason}" in words


def test_verdicts_are_stated_plainly(elements):
    words = _words(elements)
    assert "Of 4 recipes compared with baseline: 1 better, 3 not distinguishable. The highest is best" in words
    assert "corrected for going on with the best 2 of 3 seeds by their early loss" in words
    assert "every seed was stopped after the probe" in words
    assert "not_run_yet has 0 of 6 evaluations" in words


def test_early_losses_and_why_seeds_stopped_are_shown(elements):
    words = _words(elements)
    assert words.count("tells which seeds do well (rank correlation") == 2, "at step 10 and at the end"
    assert "seed 3, stopped: the training loss was high" in words
    assert (
        sum(attributes.get("class", "").startswith("dot ") for tag, attributes in elements.tags if tag == "circle") > 10
    )


def test_published_figures_stand_beside_ours(elements):
    words = _words(elements)
    assert "◇ 2.9804" in words
    assert "◇ 246,074" in words


def test_the_same_files_give_the_same_bytes(built, page):
    configuration, layout, plan, _ = built
    assert build_report(configuration, layout, plan).read_text(encoding="utf-8") == page


def test_text_from_the_data_cannot_become_markup(tmp_path):
    configuration, layout, plan = write_fake_results(tmp_path, rows=60, training=False)
    table = pa.Table.from_pylist(
        [
            {
                "id": f"{number:06d}",
                "text": "<__dj__image>\n<script>alert(1)</script> <|__dj__eoc|>",
                "images": ["x.jpg"],
            }
            | {"image_root": "pool"}
            for number in range(60)
        ]
    )
    for shard in plan.shards("pool"):
        write_table(layout.records("pool", shard), table)
    page = build_report(configuration, layout, plan).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert "image missing" in page


def test_an_analysis_without_training(tmp_path):
    *_, page = _build(tmp_path, rows=60, training=False)
    words = _words(Elements(page))
    assert "trains no recipe" in words
    assert "Ledger of every dataset" in words
    assert 'id="leaderboard"' not in page


def test_nothing_has_run_yet(tmp_path):
    configuration = fake_configuration(tmp_path)
    layout = Layout(tmp_path / "results")
    words = _words(Elements(build_report(configuration, layout, Plan(configuration)).read_text(encoding="utf-8")))
    for text in (
        "No leaderboard yet",
        "No raw file has been read yet",
        "Nothing has been scored yet",
        "Not trained yet",
    ):
        assert text in words
    assert "words_num has not scored the pool" in words


def test_records_need_not_be_on_this_machine(tmp_path):
    configuration, layout, plan = write_fake_results(tmp_path, rows=60, training=False)
    for shard in plan.shards("pool"):
        layout.records("pool", shard).unlink()
    page = build_report(configuration, layout, plan).read_text(encoding="utf-8")
    assert "<h3>image_text_matching ≥ 0.6" not in page
    assert "<h3>image_text_similarity ≥ 0.22" in page  # these are rewritten pairs, which are still there


def test_sixty_recipes(tmp_path):
    *_, page = _build(tmp_path, rows=60, extra_recipes=53)
    assert page.count('id="recipe-') == 60
    assert len(page) < 2_000_000


def test_examples_lie_next_to_the_threshold_on_their_side(page):
    block = page[page.index("<h3>image_text_matching ≥ 0.6") :]
    kept, dropped = block[: block.index("<h3>", 4)].split("<h4>dropped, just below the bound</h4>")
    scores = [[float(value) for value in re.findall(r'class="sub">(\S+) ·', part)] for part in (kept, dropped)]
    assert len(scores[0]) == 3
    assert all(value >= 0.6 for value in scores[0]) and scores[0] == sorted(scores[0])
    assert all(value < 0.6 for value in scores[1]) and scores[1] == sorted(scores[1], reverse=True)


def test_precision_and_recall_against_a_count_by_hand(built):
    configuration, layout, _, _ = built
    quality = filter_quality(configuration, layout)
    entry = next(entry for entry in quality["filters"] if entry["dataset"] == "grounded")
    truth = {row["id"]: row for row in pq.read_table(configuration.report.truth).to_pylist()}
    dropped = pq.read_table(layout.dropped("grounded"))["id"].to_pylist()
    found = sum(not truth[name]["caption_right"] for name in dropped)
    wrong = sum(not row["caption_right"] for row in truth.values())
    assert entry["defects"]["caption not right"]["recall"] == pytest.approx(found / wrong)
    assert entry["defects"]["caption not right"]["precision"] == pytest.approx(found / len(dropped))
    assert entry["dropped"] == len(dropped)
    # Rewritten pairs do not count, so the filter over them alone is not listed.
    assert "better" not in {entry["dataset"] for entry in quality["filters"]}


def test_the_leaderboards_file_has_what_the_page_shows(built, elements):
    entries = json.loads(built[1].leaderboard.read_text())["recipes"]
    words = _words(elements)
    for entry in entries:
        if entry["score"] is not None:
            assert f"{entry['score']:.3f}" in words


def test_edges_carry_the_rows_that_came_along_them(built):
    configuration, layout, plan, _ = built
    numbers = {(line[0], line[1]): line[2:] for line in flow(configuration, layout, plan)["numbers"][1:]}
    spliced = read_json(layout.dataset_card("spliced"))["ledger"]
    assert numbers["better", "spliced"][0] == spliced["changed"] > 0
    assert numbers["matched", "spliced"][0] == spliced["out"] - spliced["changed"]
    assert numbers["spliced", "best"] == [spliced["out"], 2 * spliced["out"]]
    assert numbers["pool", "grounded"][0] == read_json(layout.dataset_card("grounded"))["rows"]


def test_pairs_before_and_after_stand_with_their_scores(built, elements):
    _, layout, plan, _ = built
    found = changes("weak", "rewritten", layout, plan)["scores"]["image_text_similarity"]
    assert f"image_text_similarity {number(found['before'])} → {number(found['after'])}" in _words(elements)


def test_a_long_edge_passes_beside_the_boxes():
    """`start` leads to `end` directly and through `middle`: three columns, two rows."""
    chain = [Node("start", "", "", (), False), Node("middle", "", "", ("start",), False)]
    drawn = graph("chain", [*chain, Node("end", "", "", ("middle", "start"), True)])
    tops = [float(y) for y in re.findall(r'<rect x="[^"]*" y="([^"]*)"', drawn)]
    assert len(tops) == 3
    assert tops[0] == tops[2] != tops[1]


def test_ticks_are_round_numbers_inside_the_range():
    assert ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(1.13, 2.9, 4) == [1.5, 2, 2.5]
    assert ticks(3, 3) == [3]


def test_thinning_keeps_points_on_their_line():
    points = [(float(step), step / 7) for step in range(1, 782)]
    thinned = thin(points)
    assert len(thinned) == 150
    assert all(loss == pytest.approx(step / 7) for step, loss in thinned)
    assert thin(points[:20]) == points[:20]


def test_words_that_hardly_come_twice_have_no_distribution():
    hashes = np.array(["a1", "b2", "c3", "c3"], dtype=object)
    languages = np.array(["en", "en", "en", "es"], dtype=object)
    assert distribution("image_hash", "image_sha256", {"pool": hashes}, []) is None
    shown = distribution("language_id", "lang", {"pool": languages}, [])
    assert shown and shown["words"]["pool"] == [("en", 0.75), ("es", 0.25)]


def test_numbers_are_short():
    values = (15000, 0.35837, 0.00019642, -4.327e-06, 0)
    assert [*map(number, values)] == ["15,000", "0.3584", "0.0002", "−4.3e−06", "0"]


def test_whole_numbers_get_a_bin_each():
    assert bin_edges(np.array([3.0, 5.0, 4.0])).tolist() == [2.5, 3.5, 4.5, 5.5]
    assert len(bin_edges(np.array([0.1, 0.7]))) == 49


def test_a_report_holds_configuration_commit_and_what_changed(tmp_path, monkeypatch):
    configuration, layout, plan, page = _build(tmp_path)
    assert history.commit() in page and "This is the first board of these results" in page
    written = Configuration.model_validate(read_yaml(layout.configuration))
    assert set(written.model_dump_json().split(",")) == set(configuration.model_dump_json().split(","))
    assert build_report(configuration, layout, plan).read_text(encoding="utf-8") == page
    monkeypatch.setattr(history, "commit", lambda: "0123456")
    board = read_json(layout.leaderboard)
    board["recipes"][0] |= {"score": 1.5, "verdict": "leaning"}
    write_json(layout.leaderboard, board)
    other = configuration.model_copy(update={"name": "other"})
    page = build_report(other, layout, plan).read_text(encoding="utf-8")
    assert "→ 0123456" in page and f"score of {board['recipes'][0]['recipe']}: " in page and "→ 1.5" in page
    assert f"verdict on {board['recipes'][0]['recipe']}: better → leaning" in page
    assert "configuration, name: " in page and len(layout.history.read_text().splitlines()) == 2

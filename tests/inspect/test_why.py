"""The story of one record, from the files of a real run."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow as pa
import pytest
from workflow import CONFIGURATION, Run

from bettersynth.configuration import configure
from bettersynth.core.errors import PersonError
from bettersynth.core.layout import Layout
from bettersynth.core.records import caption_of
from bettersynth.core.tables import read_table
from bettersynth.inspect.why import Story
from bettersynth.workflow import run as opened
from bettersynth.workflow.plan import Plan
from miniature.render import render_world

pytestmark = pytest.mark.workflow

CANDIDATES = {"blip2": {"model": "blip2", "max_new_tokens": 12, "candidates": 3}}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Run:
    """A run up to its training files, over a pool with faults."""
    folder = tmp_path_factory.mktemp("why")
    counts = {"records": 60, "second_records": 10, "textvqa": 4, "mmbench": 4, "instructions": 4}
    render_world(folder / "data", seed=5, workers=1, faults=True, **counts)
    run = Run(folder, {**CONFIGURATION, "captioners": CANDIDATES, "trainset": {"cap": 40}})
    run.snakemake("trainsets")
    return run


@pytest.fixture
def story(made, monkeypatch) -> Story:
    monkeypatch.chdir(made.folder)
    configuration = configure(made.configuration, "small.yaml")
    layout = Layout(made.results.relative_to(made.folder))
    return Story(opened.Run(configuration, layout, Plan(configuration), Path("small.yaml")))


def rows(made: Run, path: str) -> list[dict[str, str]]:
    return read_table(made.results / path).to_pylist()


def test_a_record_that_was_rewritten_is_followed_to_the_training_files(made, story):
    record = rows(made, "sources/rewritten/records/rewritten-0000.parquet")[0]
    told = story.of_record(record["id"])
    assert "data/mgm_pretrain_stage_" in told and ": kept, in shard stage_" in told
    assert "similarity of pool: image_text_similarity" in told
    assert "similarity of rewritten: image_text_similarity" in told
    assert f"rewritten (recaption): {caption_of(record['text'])}" in told
    assert told.count("  candidate: ") == 3
    places = [
        place for place, row in enumerate(rows(made, "datasets/best/rows.parquet"), 1) if row["id"] == record["id"]
    ]
    assert len(places) == 2 and f"best: kept, from rewritten, rows {places[0]}, {places[1]}" in told


def test_positions_are_those_of_the_training_file(made, story):
    entries = json.loads((made.results / "trainsets" / "best.json").read_text())
    mine = entries[7]["id"]
    positions = [place for place, entry in enumerate(entries, 1) if entry["id"] == mine]
    assert f"best: entr{'y' if len(positions) == 1 else 'ies'} {', '.join(map(str, positions))} of" in story.of_record(
        mine
    )
    ids = {row["id"] for row in rows(made, "datasets/best/rows.parquet")} - {entry["id"] for entry in entries}
    assert "best: in best, but cut by the cap" in story.of_record(min(ids))


def test_a_dropped_record_has_its_reason(made, story):
    dropped = rows(made, "datasets/wordy/dropped.parquet")[0]
    told = story.of_record(dropped["id"])
    assert (
        "wordy: dropped, " in told and "words_num.num_words below 6" in told and "words_num of pool: num_words " in told
    )
    assert "\nTraining files" not in told or "unfiltered: entr" in told


def test_a_dataset_of_an_earlier_definition_is_said_to_be_so(made, monkeypatch):
    dropped = rows(made, "datasets/wordy/dropped.parquet")[0]
    monkeypatch.chdir(made.folder)
    datasets = {**made.configuration["datasets"], "wordy": {"from": "pool", "filter": {"words_num": {"min": 5}}}}
    configuration = configure({**made.configuration, "datasets": datasets}, "small.yaml")
    layout = Layout(made.results.relative_to(made.folder))
    now = Story(opened.Run(configuration, layout, Plan(configuration), Path("small.yaml")))
    assert "wordy (as last made, of an earlier definition): dropped, " in now.of_record(dropped["id"])


def test_a_refused_line_is_found_by_its_id_and_by_its_image(made, story):
    lines = (made.results / "pool" / "files" / "stage_1.quarantine.jsonl").read_text().splitlines()
    refused = next(entry for entry in map(json.loads, lines) if entry["reason"] == "image missing")
    record = json.loads(refused["raw"])
    told = f"data/mgm_pretrain_stage_1.jsonl, line {refused['line']}: in quarantine, image missing"
    assert told in story.of_record(record["id"])
    assert story.records_with(record["images"][0]) == [record["id"]]


def test_a_name_of_nothing_is_refused_with_what_to_do(story):
    with pytest.raises(PersonError, match=r"names the record `nobody`.*make run CONFIG=small.yaml"):
        story.of_record("nobody")
    with pytest.raises(PersonError, match=r"shows `none.jpg`; give the path as the records do"):
        story.records_with("none.jpg")


def test_410_000_rows_take_seconds(made, story, tmp_path):
    import pyarrow.parquet as pq

    from bettersynth.inspect import why

    path = tmp_path / "rows.parquet"
    ids = pa.array([f"{number:09d}" for number in range(410_000)])
    pq.write_table(pa.table({"id": ids, "source": pa.repeat("pool", 410_000)}), path, row_group_size=65_536)
    started = time.monotonic()
    assert why._places(path, "000409999") == {("000409999", "pool"): [410_000]}
    assert list(why._rows(path, "000000007")) == [{"id": "000000007", "source": "pool"}]
    assert time.monotonic() - started < 5

"""Pictures are inputs, on the real workflow: which shards are read in and scored again, counted."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections import Counter

import pytest
from PIL import Image
from workflow import CONFIGURATION, Run

from bettersynth.core.layout import Layout
from bettersynth.core.records import read_records
from bettersynth.core.tables import read_table, write_table
from miniature.render import render_world

pytestmark = pytest.mark.workflow

PARTS = ("pool", "models", "operators", "captioners", "datasets")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    """A run up to datasets, captions among them; a pass takes one shard, so passes are counted in shards."""
    folder = tmp_path_factory.mktemp("pictures")
    render_world(folder / "data", records=40, second_records=8, textvqa=2, mmbench=2, instructions=4, faults=True)
    configuration = {key: copy.deepcopy(CONFIGURATION[key]) for key in PARTS} | {"scoring": {"shards_per_job": 1}}
    run = Run(folder, configuration)
    run.snakemake("scores", "datasets")
    return run


@pytest.fixture
def run(finished, tmp_path) -> Run:
    """The run, copied to another place."""
    copied = finished.copy(tmp_path / "elsewhere")
    copied.configure(copy.deepcopy(finished.configuration))
    return copied


def pictures(run, shard="stage_1-0001") -> list[str]:
    """Names of a shard's pictures that no record of another shard shows."""
    layout = Layout(run.results)
    shards = {
        path.stem: list(read_records(path)) for path in sorted(layout.records("pool", shard).parent.glob("*.parquet"))
    }
    shown = Counter(image for records in shards.values() for image in {i for record in records for i in record.images})
    return [image for record in shards[shard] for image in record.images if shown[image] == 1]


def repaint(path):
    """Another picture under the same name, with the same time of change."""
    stat = path.stat()
    Image.new("RGB", (40, 30), (200, 30, 30)).save(path, path.suffix.lower().lstrip(".").replace("jpg", "jpeg"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def scored(run) -> dict[str, int]:
    """Files of scores, by operator and shard."""
    files = (run.results / "scores" / "pool").glob("*/stage_*-????-*.parquet")
    return Counter((path.parent.name, path.stem.rpartition("-")[0]) for path in files)


def expect_one_shard(run, shard="stage_1-0001"):
    file = shard.rpartition("-")[0]
    once = {f"ingest_{file}": 1, "pool_index": 1, "score_neural": 1, "score_plain": 1, "scores_of": 2}
    assert run.would_run("scores") == once
    before = scored(run)
    run.snakemake("scores")
    assert scored(run) - before == {("similarity", shard): 1, ("words_num", shard): 1}
    assert run.would_run("scores") == {}


def test_a_changed_picture_scores_its_shard_again(run):
    repaint(run.folder / "data" / pictures(run)[0])
    expect_one_shard(run)


def test_a_deleted_picture_takes_its_record_and_mended_brings_it_back(run):
    path = run.folder / "data" / pictures(run)[0]
    kept = path.read_bytes()
    rows = read_table(run.results / "pool" / "index.parquet").num_rows
    path.unlink()
    expect_one_shard(run)
    assert read_table(run.results / "pool" / "index.parquet").num_rows == rows - 1
    path.write_bytes(kept)
    jobs = run.would_run("scores")
    assert jobs["ingest_stage_1"] == jobs["score_neural"] == jobs["score_plain"] == 1
    before = scored(run)
    run.snakemake("scores")
    assert scored(run) == before, "its scores are still there"
    assert read_table(run.results / "pool" / "index.parquet").num_rows == rows and run.would_run("scores") == {}


def test_pictures_of_quarantined_records_are_looked_at_again(run):
    quarantine = run.results / "pool" / "files" / "stage_1.quarantine.jsonl"
    refused = [json.loads(line) for line in quarantine.read_text().splitlines()]
    [line] = [entry for entry in refused if entry["reason"] == "image missing"][:1]
    record = json.loads(line["raw"])
    (run.folder / "data" / record["images"][0]).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(run.folder / "data" / record["images"][0])
    table = read_table(run.results / "pool" / "files" / "stage_1.images.parquet")
    [shard] = {row["shard"] for row in table.to_pylist() if row["image"] == record["images"][0]}
    expect_one_shard(run, shard)
    assert record["id"] in {each.id for each in read_records(Layout(run.results).records("pool", shard))}


def test_another_folder_of_pictures_scores_what_differs(run):
    shutil.copytree(run.folder / "data" / "images", run.folder / "other" / "images")
    run.configuration["pool"]["images"] = "other"
    run.configure(run.configuration)
    assert run.would_run("scores", "datasets") == {}, "the same pictures elsewhere"
    repaint(run.folder / "other" / pictures(run)[0])
    expect_one_shard(run)


def test_touched_and_replaced_pictures_rerun_nothing(run):
    for path in (run.folder / "data" / "images").rglob("*.*"):
        os.utime(path)
        path.write_bytes(path.read_bytes())
    assert run.would_run("scores", "datasets") == {}
    seen = run.results / "pool" / "files" / "stage_1.seen.parquet"
    before = seen.stat().st_mtime_ns
    assert run.would_run("scores", "datasets") == {} and seen.stat().st_mtime_ns == before, "read once"


def test_rewrites_of_other_pictures_stay(run):
    rewritten = {row.id for row in read_records(Layout(run.results).records("rewritten", "rewritten-0000"))}
    repaint(next(run.folder / "data" / name for name, record in shown(run) if record in rewritten))
    run.snakemake("scores", "datasets")
    card = json.loads(Layout(run.results).records_card("rewritten", "rewritten-0000").read_text())
    assert card["reused"] >= card["asked"] - 2 and run.would_run("scores", "datasets") == {}


def shown(run):
    for path in (run.results / "pool" / "records").glob("*.parquet"):
        for record in read_records(path):
            yield record.images[0], record.id


def test_never_looks_at_no_picture_and_the_job_finds_the_other_one(run):
    run.configuration["pool"]["check_images"] = "never"
    run.configuration["operators"]["image_shape"] = {"op": "image_shape_filter"}
    run.configure(run.configuration)
    name = pictures(run)[0]
    repaint(run.folder / "data" / name)
    os.utime(run.folder / "data" / name)
    assert run.would_run("scores") == {"score_plain": 4, "scores_of": 1}
    failed = run.snakemake("scores", check=False)
    said = failed.stdout + failed.stderr
    assert failed.returncode and f"data/{name}: not the picture that was read into the pool" in said
    assert "make run CONFIG=small.yaml" in said


def test_results_of_an_earlier_version_go_on(run):
    """It noted sizes alone, and records held no digests."""
    for path in (run.results / "pool").rglob("*.parquet"):
        table = read_table(path)
        if path.name.endswith(".images.parquet"):
            times = path.stat()
            good = table.filter(table["sha256"].is_valid()).select(["image", "bytes"])
            write_table(path, good)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run.would_run("scores") == {}
    path = run.folder / "data" / pictures(run)[0]
    path.write_bytes(path.read_bytes() + b"\0")
    assert run.would_run("scores")["ingest_stage_1"] == 1

"""The same rules on real pairs of the contest's kind, where they are at hand; they are not part of the project."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from workflow import ROOT, Run

from bettersynth.configuration import read_yaml
from miniature.render import render_world

SAMPLE = Path(os.environ.get("CONTEST_SAMPLE", ROOT.parent / "shared" / "data" / "contest-sample"))
pytestmark = [
    pytest.mark.workflow,
    pytest.mark.skipif(not SAMPLE.is_dir(), reason="set CONTEST_SAMPLE to a folder with pool.jsonl and images/"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """From the sample's pool.jsonl to evaluation results, by the shipped configuration."""
    folder = tmp_path_factory.mktemp("sample")
    render_world(folder / "data" / "miniature", records=4, textvqa=8, mmbench=4, instructions=32)
    for link, target in {
        "data/contest-sample": SAMPLE,
        "resources": ROOT / "resources",
        "models": ROOT / "models",
    }.items():
        (folder / link).symlink_to(target)
    run = Run(folder, read_yaml(ROOT / "config" / "contest_sample.yaml"))
    run.snakemake()
    return run


def column(run: Run, operator: str, stat: str) -> dict[str, object]:
    tables = [pq.read_table(path) for path in sorted((run.results / "scores" / "pool" / operator).glob("*.parquet"))]
    return {row["id"]: row[stat] for table in tables for row in table.to_pylist()}


def test_every_record_is_accounted_for(run):
    raw = (SAMPLE / "pool.jsonl").read_bytes().splitlines()
    assert len(raw) == 599 or "CONTEST_SAMPLE" in os.environ
    ledger = json.loads((run.results / "pool" / "files" / "sample.json").read_text())
    assert ledger["lines"] == len(raw) == ledger["rows"] + sum(ledger["quarantined"].values())
    assert pq.read_metadata(run.results / "pool" / "index.parquet").num_rows == ledger["rows"]


def test_scores_without_a_learned_image_model_are_the_real_ones(run):
    from PIL import Image

    records = {record["id"]: record for record in map(json.loads, (SAMPLE / "pool.jsonl").open())}
    words, widths, sizes = (
        column(run, *names)
        for names in (("words_num", "num_words"), ("image_shape", "image_width"), ("image_size", "image_sizes"))
    )
    actions = column(run, "text_action", "num_action")
    assert words.keys() == widths.keys() == sizes.keys() == actions.keys() == records.keys()
    for identity, record in list(records.items())[::20]:
        path = SAMPLE / record["images"][0]
        with Image.open(path) as image:
            assert widths[identity] == [image.width]
        assert sizes[identity] == [path.stat().st_size]
    assert sum(actions.values()) > len(actions) / 10, "English captions have verbs"


def test_it_ends_in_evaluation_results(run):
    for benchmark in ("textvqa", "mmbench"):
        result = json.loads((run.results / "runs/best/seed-1/evaluation" / benchmark / "result.json").read_text())
        assert 0 <= result["accuracy"] <= 1

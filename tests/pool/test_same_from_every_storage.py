"""The miniature from tars, Parquet and a zip: scores, datasets, training file and figures are those of single files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from pairs import pair, write_jsonl
from storing import Stored, write_parquet, write_tars, write_zip
from workflow import CONFIGURATION, MODELS

from bench._steps import STEPS
from bettersynth.configuration import load
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json
from bettersynth.core.records import POOL, caption_of
from bettersynth.core.tables import read_table
from bettersynth.datasets.analysis import build_analysis
from bettersynth.pool.images import ImageRoots
from bettersynth.report.flow import flow
from bettersynth.workflow.archives import read_bytes
from bettersynth.workflow.plan import Plan
from miniature.render import render_world

pytestmark = pytest.mark.models
OPERATORS = {
    "similarity": {"op": "image_text_similarity_filter", "model": "clip"},
    "words": {"op": "words_num_filter"},
    "shape": {"op": "image_shape_filter"},
    "hash": {"op": "image_hash"},
}
DATASETS = {
    "wordy": {"from": "pool", "filter": {"words": {"min": 7}}},
    "distinct": {"from": "wordy", "dedup": {"by": "image"}},
    "similar": {"from": "distinct", "filter": {"similarity": {"min": 0.1}}},
    "twice": {"from": "similar", "repeat": 2},
}


class Made(NamedTuple):
    """What came of the pool, without the names of pictures' files."""

    scores: dict[str, Any]
    rows: dict[str, Any]
    ledgers: dict[str, Any]
    trained: list[Any]
    figures: list[Any]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("storages")
    render_world(folder / "data", records=24, second_records=4, textvqa=1, mmbench=1, instructions=1, faults=False)
    return folder


def stored(world: Path) -> list[Stored]:
    lines = map(json.loads, (world / "data" / "mgm_pretrain_stage_1.jsonl").read_text().splitlines())
    return [Stored(line["id"], caption_of(line["text"]), world / "data" / line["images"][0]) for line in lines]


def pool(kind: str, world: Path, folder: Path) -> dict[str, Any]:
    pairs = stored(world)
    match kind:
        case "tars":
            return {"files": [{"name": "raw", "path": write_tars(folder / "tars", pairs), "shards": 2}]}
        case "parquet":
            path = write_parquet(folder / "train.parquet", pairs)
            return {"files": [{"name": "raw", "path": path, "shards": 2}]}
        case "zip":
            _, images = write_zip(folder / "zip", pairs)  # its own JSON is LLaVA's, which has questions of its own
            path = str(
                write_jsonl(folder / "raw.jsonl", [pair(p.id, p.caption, f"images/{p.image.name}") for p in pairs])
            )
            return {"files": [{"name": "raw", "path": path, "shards": 2}], "images": images}
    images = world / "data"
    lines = [pair(one.id, one.caption, str(one.image.relative_to(images))) for one in pairs]
    path = write_jsonl(folder / "raw.jsonl", lines)
    return {"files": [{"name": "raw", "path": str(path), "shards": 2}], "images": str(images)}


def made(kind: str, world: Path, folder: Path) -> Made:
    parts = {name: CONFIGURATION[name] for name in ("models", "training", "trainset", "evaluation")}
    content = {
        **parts,
        "name": "small",
        "pool": {**pool(kind, world, folder), "restore": [str(world / "data" / "stage_1.json")]},
        "operators": OPERATORS,
        "datasets": DATASETS,
        "recipes": {"twice": {"dataset": "twice", "seeds": [1]}},
        "analyses": {"all": {"dataset": "pool", "operators": ["similarity", "words"]}},
    }
    content["models"] = {name: {"path": str(MODELS / name)} for name in content["models"]}
    Path("small.yaml").write_text(yaml.safe_dump(content))
    configuration = load("small.yaml")
    layout, plan = Layout("results/small"), Plan(configuration)
    STEPS["ingest"](configuration, layout, plan, "raw")
    STEPS["index"](configuration, layout, plan)
    for operator in OPERATORS:
        for step in ("score", "gather"):
            STEPS[step](configuration, layout, plan, POOL, operator)
    for dataset in DATASETS:
        STEPS["dataset"](configuration, layout, plan, dataset)
    STEPS["trainset"](configuration, layout, plan, "twice")
    analysis = build_analysis("all", configuration, layout, plan)
    roots = ImageRoots(configuration.pool, layout)
    entries = json.loads(layout.trainset("twice").read_text())
    return Made(
        {name: read_table(layout.scores(POOL, name)).sort_by("id").to_pylist() for name in OPERATORS},
        {name: read_table(layout.rows(name)).to_pylist() for name in DATASETS},
        {name: read_json(layout.dataset_card(name))["ledger"] for name in DATASETS},
        [{**entry, "image": read_bytes(roots.found(entry["image"]))} for entry in entries],
        [flow(configuration, layout, plan)["numbers"], analysis["stats"]],
    )


@pytest.fixture(scope="module")
def plain(world) -> Made:
    folder = world / "files"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(world / "cache"))
        return made("files", world, folder)


@pytest.mark.parametrize("kind", ["tars", "parquet", "zip"])
def test_all_that_is_made_is_the_same(kind, world, plain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = made(kind, world, tmp_path)
    assert 3 < len(plain.rows["similar"]) < 24 and plain.trained
    for what in Made._fields:
        assert getattr(found, what) == getattr(plain, what), what
    written = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert not {".jpg", ".png"} & written, "nothing is unpacked"

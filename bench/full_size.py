"""Time and memory of ingest, words_num, every verb and training files over 410,000 rendered records."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from bench._plane import DataPlane
from bettersynth.core.publish import read_json
from bettersynth.core.records import POOL

FILES = {"stage_1": 40, "stage_2": 1}
"""Raw files and their shares of the records; also their shards."""
DATASETS: dict[str, Any] = {
    "first": {"from": "pool", "files": ["stage_1"]},
    "wordy": {"from": "pool", "filter": {"words_num": {"min": 10}}},
    "ranked": {"from": "pool", "rank": {"by": "words_num", "fraction": 0.5, "skip": 1000}},
    "sampled": {"from": "pool", "sample": {"fraction": 0.5}},
    "resampled": {"from": "pool", "resample": {"rows": 200_000}},
    "clustered": {"from": "pool", "cluster": {"by": "text_embedding", "clusters": 400, "rows": 200_000}},
    "either": {"from": "wordy", "union": ["sampled"]},
    "both": {"from": "wordy", "intersect": ["sampled"]},
    "rest": {"from": "pool", "subtract": ["wordy"]},
    "rewritten": {"from": "sampled", "recaption": {"captioner": "blip2", "shards": 4}},
    "redrawn": {"from": "sampled", "redraw": {"redrawer": "diffusion", "shards": 4}},
    "spliced": {"from": "pool", "splice": "rewritten"},
    "twice": {"from": "spliced", "repeat": 2},
    "cleaned": {"from": "pool", "clean": {"shards": 4}},
    "unique": {"from": "pool", "dedup": {"by": "text"}},
    "unlike": {"from": "pool", "dedup": {"by": "text", "near": True}},
    "unlike_images": {"from": "pool", "dedup": {"by": "image", "near": True}},
}
"""Every verb once, over as many rows as can be."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--records", type=int, default=410_000, help="records to render (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes that render (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="folder for everything that is made; kept if given")


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Render the records; take them in, images decoded; score words_num by Data-Juicer; then each verb, and two files.

    New captions, new images, vectors and hashes of images are drawn, for they need models or much time.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options.out = options.out.resolve()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(contextlib.chdir(folder))
        return _measure(options.records, options.workers)


def _measure(records: int, workers: int) -> dict[str, float]:
    before = DataPlane(_configured("before.yaml", {"words_num": {"op": "words_num_filter"}}, {}))
    before.timed("render", "world", _render_command(records, workers))
    before.ingest()
    before.step("words_num", "score", POOL, "words_num")
    before.scores(POOL, ["words_num"])

    operators = {"words_num": "words_num_filter", "image_hash": "image_hash", "text_embedding": "text_embedding"}
    plane = DataPlane(_configured("full.yaml", {name: {"op": op} for name, op in operators.items()}, DATASETS))
    plane.scores(POOL, ["image_hash", "text_embedding"])
    plane.datasets(DATASETS)
    plane.trainsets(["whole", "twice"])
    plane.steps = before.steps + plane.steps
    rows = read_json(plane.layout.dataset_card(POOL))["rows"]
    return {"records": rows, "image_mb": round(_image_bytes() / 1e6), **plane.figures()}


def _render_command(records: int, workers: int) -> list[str]:
    share = records // sum(FILES.values())
    counts = {"records": share * FILES["stage_1"], "second-records": share * FILES["stage_2"]}
    counts |= {"textvqa": 10, "mmbench": 10, "instructions": 10, "workers": workers}
    options = [f"--{name}={count}" for name, count in counts.items()]
    return [sys.executable, "-m", "miniature", "render", "--out", "data", *options]


def _configured(name: str, operators: dict[str, Any], datasets: dict[str, Any]) -> Path:
    """A configuration over the rendered world, as a file in the present folder."""
    files = [
        {"name": file, "path": f"data/mgm_pretrain_{file}.jsonl", "shards": shards} for file, shards in FILES.items()
    ]
    model = {"model": "none"}
    part = {"language_model": "none", "vision_tower": "none", "vision_tower_aux": "none"}
    content: dict[str, Any] = {
        "name": "full_size",
        "pool": {"files": files, "images": "data", "restore": [f"data/{file}.json" for file in FILES]},
        "models": {"none": {"path": "none"}},
        "operators": {key: entry | (model if key == "text_embedding" else {}) for key, entry in operators.items()},
        "captioners": {"blip2": model},
        "redrawers": {"diffusion": model},
        "datasets": datasets,
    }
    if datasets:
        questions = {"questions": "none", "annotations": "none", "images": "none"}
        content |= {
            "training": {"architecture": part, "finetune": {"instructions": "none", "images": "none"}},
            "evaluation": {"textvqa": questions, "mmbench": {"questions": "none"}},
            "recipes": {"whole": {"dataset": POOL, "trainset": {"cap": None}}, "twice": {"dataset": "twice"}},
        }
    path = Path(name)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def _image_bytes() -> int:
    return sum(path.stat().st_size for path in Path("data").rglob("*.jpg"))

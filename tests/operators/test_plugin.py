"""The plugin for Data-Juicer: installed by pip, found by `dj-process`, and equal to the stock filters."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from workflow import MODELS

from miniature.render import render_world

ROOT = Path(__file__).parents[2]
OFFLINE = {"HF_HUB_OFFLINE": "1", "UV_OFFLINE": "1", "PIP_NO_INDEX": "1"}
EVERY = """
import json, sys
from data_juicer.ops import OPERATORS
from data_juicer.utils.constant import Fields
given = json.load(sys.stdin)
size = len(given["samples"]["id"])

def scored(kind, first, last):
    samples = {key: values[first:last] for key, values in given["samples"].items()}
    made = kind.compute_stats({**samples, Fields.stats: [{} for _ in samples["id"]]})
    kept = kind.process({Fields.stats: made[Fields.stats]})
    values = [[float(one) for one in value] for stats in made[Fields.stats] for value in stats.values()]
    return list(zip(made["id"], values, map(bool, kept)))

found = {}
for name, arguments in given["filters"].items():
    stock, ours = (OPERATORS.modules[full](**arguments, skip_op_error=True) for full in (name, "bettersynth_" + name))
    found[name] = [row for at in range(size) for row in scored(stock, at, at + 1)], scored(ours, 0, size)
json.dump({"found": found, "stock": type(stock).__module__}, open(sys.argv[1], "w"))
"""
"""The stock filter one by one, as `dj-process` calls it, and ours over all at one time."""


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """The miniature's pairs in `data`, and the plugin as pip installs it in `installed`."""
    folder = tmp_path_factory.mktemp("plugin")
    render_world(folder / "data", records=40, second_records=4, textvqa=1, mmbench=1, instructions=1, faults=False)
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", folder / "installed"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *install, ROOT / "plugins" / "data-juicer"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


def environment(world: Path, **more: str) -> dict[str, str]:
    paths = os.pathsep.join([str(world / "installed"), os.environ["PYTHONPATH"]])
    return {**os.environ, **OFFLINE, "HF_HOME": str(world / "hf"), "PYTHONPATH": paths, **more}


def dj_process(world: Path, out: str, nsfw: str, **more: str) -> tuple[dict[str, dict], str]:
    """The stats of the rows kept, by id, in order, and what was logged."""
    recipe = {
        "dataset_path": str(world / "data" / "mgm_pretrain_stage_1.jsonl"),
        "export_path": str(world / out / "kept.jsonl"),
        "np": 2,
        "use_cache": False,
        "open_monitor": False,
        "keep_stats_in_res_ds": True,
        "process": [
            {"image_text_similarity_filter": {"hf_clip": str(MODELS / "clip"), "min_score": 0.1, "any_or_all": "all"}},
            {nsfw: {"hf_nsfw_model": str(MODELS / "nsfw"), "max_score": 0.9}},
        ],
    }
    settings = world / f"{out}.yaml"
    settings.write_text(yaml.safe_dump(recipe))
    done = subprocess.run(
        [Path(sys.executable).with_name("dj-process"), "--config", settings],
        env=environment(world, **more),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in Path(recipe["export_path"]).read_text().splitlines()]
    return {row["id"]: row["__dj__stats__"] for row in rows}, done.stdout + done.stderr


def test_a_recipe_keeps_the_same_rows_with_the_same_stats(world):
    """One filter in the place of the stock one, the other by its own name."""
    stock, _ = dj_process(world, "stock", "image_nsfw_filter")
    ours, said = dj_process(world, "ours", "bettersynth_image_nsfw_filter", BETTERSYNTH_FILTERS="batched")
    assert "['bettersynth']" in said and "one sample at a time" not in said
    assert 0 < len(stock) < 40 and list(ours) == list(stock)
    for name, stats in stock.items():
        assert ours[name].keys() == stats.keys()
        for stat, values in stats.items():
            assert ours[name][stat] == pytest.approx(values, abs=1e-6), (name, stat)


def test_every_filter_is_equal_on_odd_samples(world, tmp_path):
    """A picture cut short, one that is not there, two in a chunk, none: as the stock filter has them."""
    images = sorted((world / "data" / "images").rglob("*.jpg"))[:6]
    short = tmp_path / "short.jpg"
    short.write_bytes(images[0].read_bytes()[:-400])
    shutil.copy(images[1], tmp_path / "odd name.jpeg")
    token, end = "<__dj__image>", "<|__dj__eoc|>"
    samples = {
        "id": ["two", "none", "short", "gone", "chunks", "odd"],
        "text": [
            f"{token}{token} a red ball {end}",
            f"no picture {end}",
            f"{token} a red ball on a blue box {end}",
            f"{token} a red ball {end}",
            f"{token} a red ball {end} {token} a blue box {end}",
            f"{token} a green box {end}",
        ],
        "images": [
            [str(images[0]), str(images[1])],
            [],
            [str(short)],
            [str(tmp_path / "gone.jpg")],
            [str(images[2]), str(images[3])],
            [str(tmp_path / "odd name.jpeg")],
        ],
    }
    filters = {
        "image_text_similarity_filter": {"hf_clip": str(MODELS / "clip"), "reduce_mode": "max"},
        "image_nsfw_filter": {"hf_nsfw_model": str(MODELS / "nsfw")},
        "image_text_matching_filter": {"hf_blip": str(MODELS / "blip_itm")},
    }
    done = subprocess.run(
        [sys.executable, "-c", EVERY, str(tmp_path / "found.json")],
        input=json.dumps({"filters": filters, "samples": samples}),
        env=environment(world),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    made = json.loads((tmp_path / "found.json").read_text())
    assert made["stock"].startswith("data_juicer.ops.filter"), "without the setting the stock filter stays"
    for name in filters:
        stock, ours = made["found"][name]
        assert [row[0] for row in ours] == ["two", "none", "short", "chunks", "odd"], done.stderr[-2000:]
        for expected, found in zip(stock, ours, strict=True):
            assert (found[0], found[2]) == (expected[0], expected[2])
            assert found[1] == pytest.approx(expected[1], abs=1e-5)

"""Flipped bits, on the real workflow: every one is an error that names the file, or changes nothing."""

from __future__ import annotations

import copy
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from workflow import CONFIGURATION, ROOT, Run

from bettersynth.core.remedy import DamagedError
from bettersynth.core.tables import read_table
from miniature.render import render_world

pytestmark = pytest.mark.workflow

SCORED = ("pool", "models", "operators", "captioners", "datasets")
KINDS = {
    "records": "pool/records/stage_1-0000.parquet",
    "order": "pool/files/stage_1.order.parquet",
    "images": "pool/files/stage_1.images.parquet",
    "index": "pool/index.parquet",
    "scores": "scores/pool/similarity/stage_1-0000-*.parquet",
    "gathered scores": "scores/pool/similarity.parquet",
    "rows": "datasets/best/rows.parquet",
    "dropped": "datasets/wordy/dropped.parquet",
    "generated records": "sources/rewritten/records/rewritten-0000.parquet",
    "failed rows": "sources/rewritten/records/rewritten-0000.failed.parquet",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    """A run up to datasets, captions among them."""
    folder = tmp_path_factory.mktemp("damage")
    render_world(folder / "data", records=24, second_records=6, textvqa=2, mmbench=2, instructions=4, faults=True)
    run = Run(folder, {key: copy.deepcopy(CONFIGURATION[key]) for key in SCORED})
    run.snakemake("scores", "datasets")
    return run


@pytest.fixture
def run(finished, tmp_path) -> Run:
    """The run, copied to another place."""
    copied = finished.copy(tmp_path / "elsewhere")
    copied.configure(copy.deepcopy(finished.configuration))
    return copied


def one(run, kind) -> Path:
    [path] = run.results.glob(KINDS[kind])
    return path


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_no_flipped_bit_of_a_table_is_read_as_other_data(finished, tmp_path, kind):
    original = one(finished, kind)
    table, bits = read_table(original), 8 * original.stat().st_size
    damaged = tmp_path / "results" / "small" / original.name
    damaged.parent.mkdir(parents=True)
    refused = 0
    for bit in {*random.Random(0).sample(range(bits), 200), *range(bits - 64, bits)}:
        shutil.copy(original, damaged)
        flip(damaged, bit)
        try:
            assert read_table(damaged).equals(table), bit
        except DamagedError as error:
            assert str(damaged) in str(error) and "make run CONFIG=config/small.yaml" in str(error)
            refused += 1
    assert refused > 200


def test_tables_of_an_earlier_version_are_read(finished, tmp_path):
    import pyarrow.parquet as pq

    table = read_table(one(finished, "records"))
    pq.write_table(table, tmp_path / "old.parquet", compression="zstd")
    assert read_table(tmp_path / "old.parquet").equals(table)


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("scores", "results/small/scores/pool/similarity.parquet"),
        ("gathered scores", "results/small/datasets/weak/rows.parquet"),
        ("generated records", "results/small/datasets/rewritten/rows.parquet"),
    ],
)
def test_the_command_that_an_error_names_makes_the_file_again(run, kind, target):
    path = one(run, kind)
    before = path.read_bytes()
    flip(path, 8 * 40)
    (run.folder / target).unlink()
    failed = run.snakemake(target, check=False)
    said = next(line for line in (failed.stdout + failed.stderr).splitlines() if "Make it again: " in line)
    assert path.name in said and failed.returncode
    remove, make = said.rpartition("Make it again: ")[2].split(" && ")
    assert (
        remove.startswith("rm -rf results/small/")
        and make == f"make run CONFIG={os.path.relpath(run.folder / 'small.yaml', run.folder)}"
    )
    subprocess.run(remove, shell=True, cwd=run.folder, check=True)
    run.snakemake("scores", "datasets")  # what `make run` calls, here without recipes
    assert path.read_bytes() == before
    assert run.would_run("scores", "datasets") == {}


def test_a_bit_in_the_middle_of_a_model_scores_again(run):
    assert run.would_run("scores") == {}
    model = run.folder / "clip"
    shutil.copytree(ROOT / "resources" / "miniature" / "models" / "clip", model)
    run.configuration["models"]["clip"]["path"] = str(model)
    run.configure(run.configuration)
    assert run.would_run("scores") == {}, "the same model in another place"
    weights = model / "model.safetensors"
    times = weights.stat()
    flip(weights, 8 * (times.st_size // 2))
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run.would_run("scores") == {"score_neural": 2, "scores_of": 1}

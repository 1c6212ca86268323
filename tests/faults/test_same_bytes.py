"""The same inputs give the same bytes, whatever the surroundings: locale, time zone, hashes, cores, order, shards."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from in_process import InProcess, whole_configuration
from light import light_configuration
from surviving import data_of
from workflow import ROOT

REVERSED = """
import os
class Reversed:
    def __init__(self, found): self.found = found
    def __iter__(self): return iter(self.found)
    def __next__(self): return self.found.pop(0)
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def close(self): pass
listdir, scandir = os.listdir, os.scandir
os.listdir = lambda *a: sorted(listdir(*a), reverse=True)
os.scandir = lambda *a: Reversed(sorted(scandir(*a), key=lambda entry: entry.name, reverse=True))
"""
"""Has every folder list its files the other way round."""
SURROUNDINGS: dict[str, dict[str, str]] = {
    "hashes": {"PYTHONHASHSEED": "4242"},
    "locale": {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "time zone": {"TZ": "Pacific/Kiritimati"},
    "order of folders": {"REVERSED": "1"},
    "cores": {"CORES": "0", "OMP_NUM_THREADS": "2"},
}
SHARDED = ("pool/", "scores/", "sources/", "inputs", "benchmarks/", "report/")
"""Files that are cut into shards, or list them."""
VERBS: dict[str, Any] = {
    "drawn": {"from": "pool", "sample": {"fraction": 0.5, "seed": 3}},
    "redrawn": {"from": "drawn", "resample": {"rows": 40, "seed": 1}},
    "unique": {"from": "pool", "dedup": {"by": "text", "near": True}},
    "ranked": {"from": "unique", "rank": {"by": "words_num", "fraction": 0.5}},
    "either": {"from": "ranked", "union": ["drawn"]},
}


def content(shards: int = 3) -> dict[str, Any]:
    """Verbs that draw, sort, group and join."""
    made = copy.deepcopy(light_configuration()) | {"name": "small"}
    made["pool"]["files"][0]["shards"] = shards
    made["datasets"] |= VERBS
    return made


def run(folder: Path, data: Path, configuration: dict[str, Any], surroundings: Mapping[str, str]) -> dict[str, str]:
    """The digests of what a process in these surroundings makes of the data."""
    folder.mkdir()
    (folder / "data").symlink_to(data)
    configuration["pool"]["max_quarantined"] = 0.8
    InProcess(folder).configure(configuration)
    (folder / "site").mkdir()
    paths = [os.environ["PYTHONPATH"], str(ROOT / "tests" / "support")]
    if "REVERSED" in surroundings:
        (folder / "site" / "sitecustomize.py").write_text(REVERSED)
        paths.insert(0, str(folder / "site"))
    environment = {**os.environ, **surroundings, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(ROOT / "tests" / "support" / "in_process.py"), str(folder)]
    cores = {int(surroundings["CORES"])} if "CORES" in surroundings else None
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
    )
    assert done.returncode == 0, done.stderr
    return data_of(folder / "results" / "small")


def whole_files(found: Mapping[str, str]) -> dict[str, str]:
    """Those that know nothing of shards."""
    return {name: digest for name, digest in found.items() if not name.startswith(SHARDED) and "card" not in name}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """The data, and what is made of them."""
    folder = tmp_path_factory.mktemp("same")
    data = InProcess.rendered(folder / "world", content()).folder / "data"
    return data, run(folder / "plain", data, content(), {"PYTHONHASHSEED": "0"})


def test_surroundings_change_no_byte(plain, tmp_path):
    data, expected = plain
    every = {name: value for variables in SURROUNDINGS.values() for name, value in variables.items()}
    assert run(tmp_path / "run", data, content(), every) == expected


@pytest.mark.faults
@pytest.mark.parametrize("what", SURROUNDINGS)
def test_one_by_one(plain, tmp_path, what):
    data, expected = plain
    assert run(tmp_path / "run", data, content(), SURROUNDINGS[what]) == expected


@pytest.mark.faults
def test_shards_change_no_dataset(plain, tmp_path):
    data, expected = plain
    found = whole_files(run(tmp_path / "run", data, content(shards=5), {}))
    assert found == whole_files(expected) and len([name for name in found if name.endswith("rows.parquet")]) == 7


@pytest.mark.faults
def test_a_whole_run_in_other_surroundings_and_batches(tmp_path):
    """Captions, pictures, training files and answers too; scores do not depend on the batch."""
    configuration = whole_configuration()
    data = InProcess.rendered(tmp_path / "world", copy.deepcopy(configuration)).folder / "data"
    first = run(tmp_path / "first", data, copy.deepcopy(configuration), {"PYTHONHASHSEED": "0"})
    configuration["scoring"] = {"batch": 3}
    configuration["captioners"]["blip2"]["batch"] = 2
    changed = (
        SURROUNDINGS["hashes"] | SURROUNDINGS["locale"] | SURROUNDINGS["order of folders"] | SURROUNDINGS["time zone"]
    )
    second = run(tmp_path / "second", data, configuration, changed)
    other = {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}
    told = {name for name in other if name.startswith(("report/", "scores/")) or name.endswith("card.json")}
    assert other - told == set()

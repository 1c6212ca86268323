"""Raw files from a dataset repository, with the real hub client, against a hub on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hub_server import HubServer, commit


@pytest.fixture
def hub():
    server = HubServer()
    server.repositories["someone/pairs"] = {
        "data/train-0.parquet": b"first",
        "data/train-1.parquet": b"second",
        "data/test-0.parquet": b"another",
        "README.md": b"a card",
    }
    yield server
    server.shutdown()


def stage(folder: Path, hub: HubServer, place: str) -> subprocess.CompletedProcess[str]:
    file = {"name": "raw", "path": "data/train-*.parquet", "hub": place}
    (folder / "small.yaml").write_text(yaml.safe_dump({"pool": {"files": [file]}, "operators": {}}))
    outside = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment = outside | {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HOME": str(folder)}
    command = [Path(sys.executable).with_name("bettersynth"), "stage", "--config", "small.yaml"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_files_of_a_pattern_come_whole_and_once(tmp_path, hub):
    place = f"hf://datasets/someone/pairs@{commit('someone/pairs')}/data/train-*.parquet"
    hub.faults["data/train-1.parquet"] = ["alter"]
    done = stage(tmp_path, hub, place)
    assert done.returncode == 0, done.stderr
    held = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir() if path.is_file()}
    assert held == {"train-0.parquet": b"first", "train-1.parquet": b"second"}
    served = len(hub.served)
    assert stage(tmp_path, hub, place).returncode == 0 and len(hub.served) == served
    assert "data/train-0.parquet" in (tmp_path / "stage" / "small.json").read_text()


def test_a_place_that_says_too_little_is_refused_with_what_to_write(tmp_path, hub):
    unpinned = stage(tmp_path, hub, "hf://datasets/someone/pairs/data/train-*.parquet")
    assert f"today's is hf://datasets/someone/pairs@{commit('someone/pairs')}/data/train-*" in unpinned.stderr
    nothing = stage(tmp_path, hub, f"hf://datasets/someone/pairs@{commit('someone/pairs')}/no.parquet")
    assert "no file of someone/pairs is called no.parquet" in nothing.stderr and not hub.served

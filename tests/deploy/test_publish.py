"""`make publish` with the real hub client, against a hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from hub_server import HubServer

from bettersynth.core.publish import read_json, sha256_bytes


@pytest.fixture(scope="module")
def run(whole_run, tmp_path_factory) -> Path:
    """A folder with a finished run, of whose first file the licence is stated."""
    folder = tmp_path_factory.mktemp("publish") / "run"
    shutil.copytree(whole_run, folder, symlinks=True)
    content = yaml.safe_load((folder / "small.yaml").read_text())
    content["pool"]["files"][0]["licence"] = "cc-by-4.0"
    (folder / "small.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


@pytest.fixture
def hub():
    server = HubServer()
    yield server
    server.shutdown()


def publish(run: Path, hub: HubServer, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    outside = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment = outside | {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HOME": str(run), **more}
    command = [Path(sys.executable).with_name("bettersynth"), "publish", "--config", "small.yaml", *arguments]
    return subprocess.run(command, cwd=run, env=environment, capture_output=True, text=True)


def test_a_dataset_is_prepared_and_nothing_leaves_the_machine(run, hub):
    import datasets

    done = publish(run, hub, "--dataset", "spliced")
    assert done.returncode == 0, done.stderr
    assert "Nothing was uploaded" in done.stdout and not hub.repositories
    place = run / "results" / "small" / "publish" / "spliced"
    for line in (place / "SHA256SUMS").read_text().splitlines():
        digest, _, name = line.partition("  ")
        assert hashlib.sha256((place / name).read_bytes()).hexdigest() == digest
    rows = datasets.load_dataset("parquet", data_dir=str(place / "data"), split="train", cache_dir=str(run / "cache"))
    assert rows["id"] == pq.read_table(run / "results/small/datasets/spliced/rows.parquet")["id"].to_pylist()
    assert all(row["image"].size[0] > 1 for row in rows)
    card = (place / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["configs"][0]["data_files"] == "data/*.parquet" and front["license"] == "other"
    assert "| stage_1 " in card and "cc-by-4.0" in card and "not stated" in card
    ledger = read_json(run / "results/small/datasets/wordy/card.json")["ledger"]
    assert re.search(rf"\| wordy \| pool \| .* \| {ledger['in']} \| 0 \| .* \| {ledger['out']} \|", card)
    for reason, count in ledger["dropped"].items():
        assert f"| wordy | {reason} | {count} |" in card
    assert "its licence is not stated, and the card says so: pool.files." in done.stdout


def test_a_dataset_is_uploaded_with_a_token_alone(run, hub):
    options = ["--dataset", "wordy", "--no-images", "--to", "someone/wordy", "--upload"]
    assert "needs a token" in publish(run, hub, *options).stderr and not hub.repositories
    done = publish(run, hub, *options, HF_TOKEN=hub.token)
    assert done.returncode == 0, done.stderr
    place = run / "results" / "small" / "publish" / "wordy"
    files = {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert hub.repositories["someone/wordy"] == files and "data/wordy.parquet" in files
    assert hub.private == {"someone/wordy": True}
    refused = publish(run, hub, *options, HF_TOKEN="another")
    assert refused.returncode and "did not take someone/wordy" in refused.stderr and "Traceback" not in refused.stderr


def test_a_model_is_uploaded_as_it_lies(run, hub):
    recipe = next(iter(yaml.safe_load((run / "small.yaml").read_text())["recipes"]))
    done = publish(run, hub, "--recipe", recipe, "--to", "someone/mgm", "--upload", "--public", HF_TOKEN=hub.token)
    assert done.returncode == 0, done.stderr
    [checkpoint] = {path.parent for path in run.glob(f"results/small/runs/{recipe}/*/finetune/checkpoint/config.json")}
    held = hub.repositories["someone/mgm"]
    for path in checkpoint.iterdir():
        if path.name != "README.md":
            assert held[path.name] == path.read_bytes()
    card = held["README.md"].decode()
    assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "transformers"
    assert "## Data and training" in card and "## Licences of its parts" in card
    assert f"{sha256_bytes(held['config.json'])}  config.json" in held["SHA256SUMS"].decode()
    assert hub.private == {"someone/mgm": False}
    assert json.loads(held["config.json"])


def test_what_is_not_there_is_said(run, hub):
    assert "DATASET=nothing: there are pool," in publish(run, hub, "--dataset", "nothing").stderr
    assert "what is to be published?" in publish(run, hub).stderr

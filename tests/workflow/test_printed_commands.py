"""Every command that a message prints does what the message says, typed as it is printed."""

from __future__ import annotations

import copy
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from workflow import CONFIGURATION, ROOT, Run, link_checkout, typed

from bettersynth.configuration import load
from bettersynth.core.commands import CONFIG_FILE, make
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, write_json
from bettersynth.workflow.plan import Plan
from miniature.render import render_world

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    """Datasets and scores of a small world, in a folder that looks like the repository."""
    folder = tmp_path_factory.mktemp("checkout")
    render_world(folder / "data", records=12, second_records=4, textvqa=2, mmbench=2, instructions=4, faults=False)
    link_checkout(folder)
    (folder / "models").symlink_to(ROOT / "models")
    content = copy.deepcopy(CONFIGURATION)
    content["datasets"] = {"wordy": content["datasets"]["wordy"], "tidy": {"from": "wordy", "clean": True}}
    content |= {"analyses": {}, "recipes": {}, "exports": {}, "report": {}}
    content["operators"].pop("similarity")
    content |= {"models": {}, "captioners": {}, "training": None, "evaluation": None}
    (folder / "config").mkdir()
    run = Run(folder, content)
    (folder / "small.yaml").rename(folder / "config" / "small.yaml")
    assert typed(folder, "make run CONFIG=config/small.yaml CORES=2").returncode == 0
    return run


def printed(words: str) -> str:
    """The command at the end of a message."""
    return re.search(r"(?:rm -rf [^&]* && )?make [a-z-]+ CONFIG=[^\n]*$", words.strip(), re.MULTILINE)[0]


def spoil_scores(run: Run, layout: Layout, plan: Plan) -> Path:
    """Give the gathered scores the card of other records: the dataset's job refuses them."""
    card = layout.scores_card("pool", "words_num")
    facts = read_json(card)
    facts["shards"] = {shard: entry | {"records": "other"} for shard, entry in facts["shards"].items()}
    write_json(card, facts)
    return layout.scores("pool", "words_num")


def spoil_shard(run: Run, layout: Layout, plan: Plan) -> Path:
    """Flip a byte of a shard's scores: what gathers them refuses it."""
    path = sorted(layout.score_shard("pool", "words_num", "", "").parent.glob("*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:-5] + b"xxxxx")
    layout.scores("pool", "words_num").unlink()
    return path


def spoil_source(run: Run, layout: Layout, plan: Plan) -> Path:
    """Leave a generated shard's rows unsaid: the dataset's job does not know what became of them."""
    path = layout.records("tidy", plan.shards("tidy")[0])
    pq.write_table(pq.read_table(path).slice(1), path)
    layout.dataset_card("tidy").unlink()
    return path


@pytest.mark.parametrize("spoil", [spoil_scores, spoil_shard, spoil_source])
def test_what_is_spoilt_is_made_again_by_the_command_that_is_printed(finished, monkeypatch, spoil):
    folder = finished.folder
    monkeypatch.chdir(folder)
    configuration = load("config/small.yaml")
    layout, plan = Layout("results/small"), Plan(configuration)
    spoil(finished, layout, plan)
    dataset = "tidy" if spoil is spoil_source else "wordy"
    for path in (layout.dataset_card(dataset), layout.report):  # else nothing asks for the dataset
        path.unlink(missing_ok=True)
    failed = typed(folder, "make run CONFIG=config/small.yaml CORES=2")
    assert failed.returncode
    command = printed(re.search(r"^.*make run CONFIG=.*$", failed.stderr, re.MULTILINE)[0])
    assert "CONFIG=config/small.yaml" in command
    mended = typed(folder, command)
    assert mended.returncode == 0, command + mended.stdout + mended.stderr
    assert "Nothing to be done" in typed(folder, "make dry-run CONFIG=config/small.yaml").stdout


def test_every_rule_that_a_message_names_is_a_rule():
    """No message names a rule that is none, or spells Snakemake's own command without its configuration."""
    text = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    rules = set(re.findall(r"^(?:use rule \w+ as|rule) (\w+)", text, re.MULTILINE))
    for path in (ROOT / "scripts").rglob("*.py"):
        text = path.read_text()
        for name in re.findall(r"AGAIN='(\w+)'", text):
            assert name in rules, path
        for command in re.findall(r"snakemake --force[^\"`]*", text):
            pytest.fail(f"{path}: {command}")


def test_commands_are_quoted_for_a_shell(monkeypatch):
    monkeypatch.setenv(CONFIG_FILE, "config/my own.yaml")
    assert shlex.split(make("run", AGAIN="a/b.json rule_c")) == [
        "make",
        "run",
        "CONFIG=config/my own.yaml",
        "AGAIN=a/b.json rule_c",
    ]
    monkeypatch.delenv(CONFIG_FILE)
    assert make("verify") == "make verify"


def test_a_pool_that_is_mostly_quarantined_stops_with_the_line_to_change(finished, tmp_path):
    run = Run(tmp_path, copy.deepcopy(finished.configuration))
    link_checkout(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models")
    (tmp_path / "data").symlink_to(finished.folder / "data")
    for key, images in (("max_quarantined", 0.1), ("images", "data/mmbench")):
        run.configuration["pool"][key] = images
    run.configure(run.configuration)
    stopped = typed(tmp_path, "make run CONFIG=small.yaml CORES=2")
    assert stopped.returncode
    assert "12 of 12 lines (100%) are quarantined, more than `pool.max_quarantined` allows (0.1)" in stopped.stderr
    assert "  12 × image missing, first in line 1: " in stopped.stderr
    assert "small.yaml:\n  pool: {max_quarantined: 1}\nand then: make run CONFIG=small.yaml" in stopped.stderr
    assert len((run.results / "pool" / "files" / "stage_1.quarantine.jsonl").read_text().splitlines()) == 12
    assert read_json(run.results / "pool" / "files" / "stage_1.json")["rows"] == 0
    assert not (run.results / "scores" / "pool").exists()
    run.configuration["pool"]["max_quarantined"] = 1
    run.configure(run.configuration)
    assert typed(tmp_path, "make run CONFIG=small.yaml CORES=2").returncode == 0


def test_an_interrupted_run_says_that_the_same_command_goes_on(finished, tmp_path):
    copied = finished.copy(tmp_path / "again").folder
    command = ["snakemake", "--configfile", "config/small.yaml", "--cores", "1", "--forceall"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(command, cwd=copied, env=environment, stderr=subprocess.PIPE, text=True)
    said = ""
    while "Execute" not in said:
        said += process.stderr.readline()
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert "the same command goes on from here" in process.communicate(timeout=120)[1]
    assert typed(copied, "make run CONFIG=config/small.yaml CORES=2").returncode == 0

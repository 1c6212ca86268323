"""Verbs that are one file beside the library run through the real workflow to drawings, explanation and report."""

import copy
import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from toys import TOYS, places
from workflow import CONFIGURATION, ROOT, Run

from bettersynth.core.records import POOL, caption_of
from miniature.render import render_world


@pytest.mark.workflow
def test_verbs_are_added_by_one_file_each(tmp_path):
    render_world(tmp_path / "data", records=24, second_records=4, textvqa=2, mmbench=2, instructions=4)
    content = copy.deepcopy(CONFIGURATION)
    content["operators"] = {"words_num": {"op": "words_num_filter"}}
    for section in ("models", "captioners", "analyses", "trainset", "training", "evaluation", "recipes", "exports"):
        del content[section]
    content["datasets"] = {
        "few": {"from": "pool", "everynth": 3},
        "loud": {"from": "few", "shouted": {"shards": 2}},
        "wordy": {"from": "loud", "filter": {"words_num": {"min": 3}}},
    }
    run = Run(tmp_path, content, paths=[TOYS])
    announced = run.snakemake("--dry-run", "--logger", "cost").stdout
    assert "shouted: loud" in announced and "dataset: everynth" in announced
    said = run.snakemake().stderr
    assert "Shout loud-0001" in said
    assert "Nothing to be done" in run.announced()

    pool = pq.read_table(run.results / "pool" / "index.parquet")["id"].to_pylist()
    datasets = run.results / "datasets"
    rows = pq.read_table(datasets / "few" / "rows.parquet").to_pylist()
    assert rows == [{"id": name, "source": POOL} for name in pool[::3]]
    dropped = pq.read_table(datasets / "few" / "dropped.parquet").to_pylist()
    assert dropped[1] == {
        "id": pool[2],
        "source": POOL,
        "verb": "everynth",
        "key": "between every",
        "bound": "3 rows",
        "value": "2",
    }
    card = json.loads((datasets / "loud" / "card.json").read_text())
    assert card["ledger"]["dropped"].keys() <= {"nothing loud"} and card["ledger"]["changed"] == card["rows"]
    shards = sorted((run.results / "sources" / "loud" / "records").glob("loud-000?.parquet"))
    captions = [caption_of(text) for shard in shards for text in pq.read_table(shard)["text"].to_pylist()]
    assert len(shards) == 2 and captions == [caption.upper() for caption in captions]

    told = bettersynth(run, "explain", "--dataset", "wordy")
    assert "of pool, keep one row of 3, the first among them" in told
    assert "between every 3 rows" in told and "of few, shouted {'shards': 2}" in told
    assert "few: dropped, between every 3 rows: 1" in bettersynth(run, "why", "--id", pool[1])
    drawn = python(run, "-c", DRAW)
    assert "every 3. row" in drawn and "#fef3c7" in drawn, "a generator is yellow"
    page = (run.results / "report" / "index.html").read_text()
    assert "every 3. row" in page and "between every 3 rows" in page

    for name, file in (("EveryNth", "verb"), ("Shouted", "generator")):
        assert places(name) == [f"tests/toys/bettersynth_plugin_toy_{file}.py"]
        assert not places(name.lower()), "no other file knows the verb by its key"


DRAW = """
from bettersynth.inspect.drawing import dataset_graph
from bettersynth.workflow.expected import Expected
from bettersynth.workflow.run import Run
run = Run.open("small.yaml")
print(dataset_graph(Expected(run.configuration, run.layout, run.plan)).string())
"""


def bettersynth(run, command, *arguments):
    """What a command of the project says."""
    return python(run, "-m", "bettersynth", command, "--config", "small.yaml", *arguments)


def python(run, *arguments):
    """What Python says, with the toys on its path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT / "scripts", TOYS]))}
    done = subprocess.run([sys.executable, *arguments], cwd=run.folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout

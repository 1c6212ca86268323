"""What protects data, each looked at by itself: without it, one of these fails (`tests/support/mutations.py`)."""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from bettersynth.core.digests import check_by_card
from bettersynth.core.layout import Layout
from bettersynth.core.model_files import file_problem
from bettersynth.core.publish import Card, publish, publish_folder, sha256_file, write_json
from bettersynth.core.records import POOL, Record, text_of, write_records
from bettersynth.core.remedy import DamagedError
from bettersynth.core.tables import read_table, write_table
from bettersynth.runtime.lease import Lease
from bettersynth.sources.journal import Journal


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the disk, in order: `fsync file`, `fsync folder`, `rename`."""
    noted: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noting_fsync(descriptor):
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        noted.append("fsync folder" if place.is_dir() else "fsync file")
        fsync(descriptor)

    def noting_replace(self, target):
        noted.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "replace", noting_replace)
    return noted


# publish by rename, and fsync


def test_a_file_is_what_it_was_until_it_is_whole(tmp_path, calls):
    path = tmp_path / "rows.json"
    path.write_text("old")
    with path.open() as reader, publish(path) as temporary:
        temporary.write_text("new, and cut")
        assert path.read_text() == "old", "nobody sees a half"
        temporary.write_text("new")
    assert path.read_text() == "new" and reader.closed and list(tmp_path.iterdir()) == [path]
    assert calls == ["fsync file", "rename", "fsync folder"]


def test_what_fails_half_way_leaves_what_was_there(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), publish(path) as temporary:
        temporary.write_text("a hal")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_what_it_was_until_it_is_whole(tmp_path, calls):
    path = tmp_path / "checkpoint"
    path.mkdir()
    (path / "weights").write_text("old")
    with publish_folder(path) as temporary:
        (temporary / "weights").write_text("new")
        assert (path / "weights").read_text() == "old"
    assert (path / "weights").read_text() == "new" and list(tmp_path.iterdir()) == [path]
    assert calls == ["fsync file", "rename", "rename", "fsync folder"]


def test_a_kill_between_any_two_steps_leaves_the_old_or_the_new(tmp_path):
    code = (
        "import os, sys, signal; from pathlib import Path; from bettersynth.core import publish\n"
        "left = int(sys.argv[2])\n"
        "def step(*_):\n"
        "    global left\n"
        "    left -= 1\n"
        "    if left < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(lambda event, arguments: step() if event in ('open', 'os.rename', 'os.remove') else None)\n"
        "publish.write_json(sys.argv[1], {'rows': 2})\n"
    )
    path = tmp_path / "card.json"
    seen = set()
    for left in range(40):
        path.write_text('{"rows": 1}')
        done = subprocess.run([sys.executable, "-c", code, str(path), str(left)], check=False)
        seen.add(json.loads(path.read_text())["rows"])
        if done.returncode == 0:
            break
    assert done.returncode == 0 and seen == {1, 2}
    write_json(path, {"rows": 3})  # the first write of another process sweeps what the killed ones left
    assert list(tmp_path.iterdir()) == [path]


# sha256 of score shards


def test_a_shard_of_scores_that_is_another_than_its_card_says_is_not_gathered(tmp_path):
    """A sound table of other numbers in the place of the one that was written: its own sums are right."""
    from bettersynth.configuration.types import Configuration
    from bettersynth.operators.gather import gather_scores
    from bettersynth.workflow.plan import Plan

    configuration = Configuration.model_validate(
        {
            "name": "small",
            "pool": {"files": [{"name": "raw", "path": "raw.jsonl", "shards": 1}], "images": "."},
            "operators": {"words": {"op": "words_num_filter"}},
        }
    )
    layout, plan = Layout(tmp_path / "results" / "small"), Plan(configuration)
    records = layout.records(POOL, "raw-0000")
    write_records(records, [Record("a", text_of("one two"), ["a.png"])])
    scores = layout.score_shard(POOL, "words", "raw-0000", "key")
    table = read_table(records, ["id"]).append_column("num_words", [[2]])
    write_table(scores, table)
    Card(inputs={}, parameters={}).write(scores.with_suffix(".json"), unreadable={}, sha256=sha256_file(scores))
    card = layout.pass_card(POOL, "cpu-0", "raw-0000-0000")
    Card().write(card, shards={"raw-0000": {"records": sha256_file(records), "scores": {"words": "key"}}})
    gather_scores(POOL, "words", [card], layout, plan)

    write_table(scores, table.set_column(1, "num_words", [[3]]))
    with pytest.raises(DamagedError, match=r"raw-0000-key\.parquet: damaged: its card says sha256"):
        gather_scores(POOL, "words", [card], layout, plan)


# tables and cards


def test_every_byte_of_a_table_is_held_against_its_sha256(tmp_path):
    path = tmp_path / "rows.parquet"
    table = pa.table({"id": ["a", "b", "c"], "source": ["pool", "pool", "new"]})
    write_table(path, table)
    whole = path.read_bytes()
    read_as_other = []
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            found = read_table(path)
        except DamagedError:
            continue
        if not found.equals(table):
            read_as_other.append(place)
    assert read_as_other == []
    path.write_bytes(whole[:-1])
    with pytest.raises(DamagedError):
        read_table(path)


def test_a_file_is_held_against_the_sha256_by_its_card(tmp_path):
    path, card = tmp_path / "pairs.json", tmp_path / "card.json"
    path.write_text("[]")
    Card().write(card, sha256=sha256_file(path))
    check_by_card(path, card)
    path.write_text("[ ]")
    with pytest.raises(DamagedError, match=r"pairs\.json: damaged: its card says sha256"):
        check_by_card(path, card)


def test_a_card_with_another_number_is_told(tmp_path):
    from bettersynth.inspect.audit import Audited

    path = tmp_path / "card.json"
    Card().write(path, rows=10)
    audited = Audited(None, Layout(tmp_path), None)
    assert audited.card(path)["rows"] == 10
    path.write_text(path.read_text().replace('"rows": 10', '"rows": 11'))
    with pytest.raises(DamagedError, match="what it says is not what was written"):
        Audited(None, Layout(tmp_path), None).card(path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.pt"])
def test_no_pickle_is_a_models_file_whatever_its_name(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps({"weight": [1.0]}))
    assert "a pickle" in str(file_problem(tmp_path / name))


# SIGTERM

JOB = """
import sys, time
from types import SimpleNamespace
from bettersynth.runtime.job import RunningJob
sys.path.insert(0, sys.argv[1])
from workflow import CONFIGURATION
names = ("wildcards", "params", "input", "output")
RunningJob(SimpleNamespace(threads=1, config={**CONFIGURATION, "name": "small"}, log=["logs/small/dataset/best.log"],
                    rule="dataset", resources={}, **dict.fromkeys(names, {})))
print("at work", file=sys.__stderr__, flush=True)
time.sleep(60)
"""


def test_a_job_that_is_asked_to_end_gives_its_lease_back_and_keeps_its_log(tmp_path):
    command = [sys.executable, "-c", JOB, str(Path(__file__).parents[1] / "support")]
    job = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    lease = tmp_path / "results" / "small" / "leases" / "dataset" / "best.json"
    log = tmp_path / "logs" / "small" / "dataset" / "best.log"
    for _ in range(600):
        if log.exists() and "at work" in log.read_text():
            break
        assert job.poll() is None
        time.sleep(0.1)
    assert lease.exists()
    job.send_signal(signal.SIGTERM)
    assert job.wait(20) == 128 + signal.SIGTERM
    assert not lease.exists() and (log.with_name("best.1.log")).exists()


# the journal


def test_a_journals_torn_line_is_cut_off_before_the_next_is_written(tmp_path, calls):
    path = tmp_path / "shard.jsonl"
    journal = Journal(path)
    journal.append({"a": {"text": "one"}})
    assert calls == ["fsync file"]
    with path.open("a") as file:
        file.write('{"key": "b", "te')
    again = Journal(path)
    again.append({"c": {"text": "three"}})
    last = Journal(path)
    assert [last.get(key) for key in "abc"] == [{"text": "one"}, None, {"text": "three"}]


def test_a_journals_line_with_other_bytes_is_made_again(tmp_path, caplog):
    path = tmp_path / "shard.jsonl"
    Journal(path).append({"a": {"text": "a red dog"}, "b": {"text": "a cat"}})
    path.write_text(path.read_text().replace("red", "bad"))
    with caplog.at_level(logging.WARNING):
        journal = Journal(path)
    assert journal.get("a") is None and journal.get("b") == {"text": "a cat"}
    assert f"{path}: line 1 is damaged" in caplog.text


# leases


def test_a_lease_is_on_the_disk_before_anybody_can_read_it(tmp_path, calls):
    Lease.acquire(tmp_path / "lease.json").release()
    assert calls[0] == "fsync file"

"""Digests: a change of one record changes one shard's, and nothing else does."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

from pairs import llava_pair, pair, write_jsonl

import bettersynth
from bettersynth.configuration.pool import Pool, PoolFile
from bettersynth.core.sharding import shard_name
from bettersynth.workflow.digests import shard_digests, take_digests

RECORDS = [pair(f"{number:04d}", f"caption {number}") for number in range(60)]
SHARDS = 8


def raw(path: Path, shards: int = SHARDS) -> tuple[Pool, PoolFile]:
    """A pool of one raw file, and the file."""
    pool = Pool.model_validate({"files": [{"path": str(path), "name": "raw", "shards": shards}], "images": "images"})
    return pool, pool.files[0]


def digests_of(path: Path, records):
    return take_digests(*raw(write_jsonl(path, records)))


def changed(before, after):
    return {name for name in before.shards if before.shards[name] != after.shards[name]}


def test_a_word_in_one_caption_changes_one_shard(tmp_path):
    before = digests_of(tmp_path / "a.jsonl", RECORDS)
    after = digests_of(tmp_path / "a.jsonl", [*RECORDS[:7], pair("0007", "another caption"), *RECORDS[8:]])
    assert changed(before, after) == {shard_name("raw", "0007", SHARDS)}
    assert before.file != after.file


def test_another_image_changes_one_shard(tmp_path):
    before = digests_of(tmp_path / "a.jsonl", RECORDS)
    after = digests_of(tmp_path / "a.jsonl", [*RECORDS[:-1], pair("0059", "caption 59", "images/two.png")])
    assert changed(before, after) == {shard_name("raw", "0059", SHARDS)}


def test_records_that_come_and_go_change_their_own_shards(tmp_path):
    before = digests_of(tmp_path / "a.jsonl", RECORDS)
    after = digests_of(tmp_path / "a.jsonl", [pair("new"), *RECORDS[:10], *RECORDS[11:]])
    assert changed(before, after) == {shard_name("raw", name, SHARDS) for name in ("new", "0010")}


def test_order_and_refused_lines_change_no_shard(tmp_path):
    before = digests_of(tmp_path / "a.jsonl", RECORDS)
    after = digests_of(tmp_path / "a.jsonl", [*RECORDS[::-1], {"id": "bad"}, "", 17])
    assert changed(before, after) == set()
    assert before.file != after.file, "the quarantine is another"


def test_spaces_escapes_and_other_keys_change_no_shard(tmp_path):
    before = digests_of(tmp_path / "a.jsonl", [pair("1", "café")])
    (tmp_path / "b.jsonl").write_text(
        json.dumps({"meta": 1, **pair(1, "café")}, indent=None, ensure_ascii=True) + "  \r\n"
    )
    after = take_digests(*raw(tmp_path / "b.jsonl"))
    assert changed(before, after) == set()


def test_the_same_records_in_llava_form_have_the_same_shards(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([llava_pair(r["id"], f"caption {int(r['id'])}") for r in RECORDS]))
    llava = take_digests(*raw(tmp_path / "a.json"))
    assert llava.shards == digests_of(tmp_path / "a.jsonl", RECORDS).shards


def test_touched_copied_and_compressed_files_have_the_same_digests(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", RECORDS)
    cache = tmp_path / "cache.json"
    before = shard_digests(*raw(path), cache)
    os.utime(path, (0, 0))
    assert shard_digests(*raw(path), cache) == before
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert shard_digests(*raw(packed), cache) == before


def test_an_unchanged_file_is_not_read_again_and_a_changed_one_is(tmp_path, monkeypatch):
    path, cache = write_jsonl(tmp_path / "a.jsonl", RECORDS), tmp_path / "cache.json"
    before = shard_digests(*raw(path), cache)
    with monkeypatch.context() as patch:
        patch.delattr("bettersynth.workflow.digests.take_digests")
        assert shard_digests(*raw(path), cache) == before
    stat = path.stat()
    path.write_bytes(b"?" * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert shard_digests(*raw(path), cache) != before, "size and time are as before, the contents are not"


def test_another_number_of_shards_is_not_answered_from_the_cache(tmp_path):
    path, cache = write_jsonl(tmp_path / "a.jsonl", RECORDS), tmp_path / "cache.json"
    for shards in (2, 5):
        assert len(shard_digests(*raw(path, shards), cache).shards) == shards


def test_building_the_graph_imports_no_heavy_library():
    code = "import sys, bettersynth.workflow.digests; print(*sys.modules)"
    scripts = str(Path(bettersynth.__file__).parent.parent)
    modules = subprocess.check_output(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": scripts}, text=True
    )
    assert not {"torch", "pandas", "PIL", "transformers", "data_juicer"} & set(modules.split())

"""What decides whether rules run again, models by their weights, the report by what it shows; where variants lie."""

from __future__ import annotations

import hashlib
import os
import shutil

import pyarrow as pa
import pytest
from fake_results import fake_configuration

from bettersynth.configuration.pool import Model
from bettersynth.configuration.types import Configuration
from bettersynth.core.digests import model_identity, sha256_folder
from bettersynth.core.layout import Layout
from bettersynth.core.publish import sha256_json, write_json
from bettersynth.core.records import ROWS
from bettersynth.core.sharding import shard_name
from bettersynth.core.tables import write_table
from bettersynth.pool.rows import _shards_of
from bettersynth.report import examples
from bettersynth.report.distributions import Scores
from bettersynth.workflow.jobs import Jobs
from bettersynth.workflow.models import model_identities
from bettersynth.workflow.plan import Plan


def test_what_a_download_leaves_beside_a_model_does_not_count(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = model_identity(tmp_path), sha256_folder(tmp_path)
    for name in (".cache/huggingface/model.metadata", ".git/index", "onnx/.hidden", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("of another day")
    assert (model_identity(tmp_path), sha256_folder(tmp_path)) == before
    (tmp_path / "onnx" / "config.json").write_text("{}")
    assert model_identity(tmp_path) != before[0] and sha256_folder(tmp_path) != before[1]


def test_a_model_that_is_one_file_has_an_identity(tmp_path):
    (tmp_path / "lid.bin").write_bytes(b"one")
    first = model_identity(tmp_path / "lid.bin")
    (tmp_path / "lid.bin").write_bytes(b"two")
    assert None is not first != model_identity(tmp_path / "lid.bin")
    assert model_identity(tmp_path / "none") is None


def identities(tmp_path):
    models = {"clip": Model(path=str(tmp_path / "clip")), "moved": Model(path=str(tmp_path / "gone"))}
    return model_identities(models, tmp_path / "models.json")


def flip_middle(path):
    """One bit in the middle; size and time of the last change of its contents stay."""
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_what_an_earlier_version_remembers_of_a_model_stands_for_it_until_a_byte_changes(tmp_path):
    weights = tmp_path / "clip" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(bytes(3 << 20))
    ends = [3 << 20, hashlib.sha256(bytes(2 << 20)).hexdigest()]  # as that version sampled a file
    sampled = sha256_json([["model.safetensors", *ends]])
    write_json(tmp_path / "models.json", {"clip": [str(tmp_path / "clip"), sampled], "moved": ["elsewhere", "0" * 64]})
    assert identities(tmp_path) == identities(tmp_path) == {"clip": sampled}
    before = weights.read_bytes()
    flip_middle(weights)
    assert identities(tmp_path) == identities(tmp_path) == {"clip": sha256_folder(weights.parent)}
    weights.write_bytes(before)
    assert identities(tmp_path) == {"clip": sampled}, "its scores are still there"
    shutil.rmtree(weights.parent)
    assert identities(tmp_path) == {"clip": sampled}, "it went; what it was is remembered"


@pytest.mark.parametrize(("key", "value"), [("note", "another"), ("published_rows", 12345)])
def test_the_report_is_made_again_when_what_it_says_of_a_dataset_changes(tmp_path, key, value):
    def parameters(content):
        configuration = Configuration.model_validate(content)
        return Jobs(configuration, Layout(tmp_path / "results")).report.parameters()

    content = fake_configuration(tmp_path).model_dump(by_alias=True, exclude_none=True)
    before = parameters(content)
    next(iter(content["datasets"].values()))[key] = value
    assert parameters(content) != before


def test_variants_are_looked_for_where_their_originals_ids_say(tmp_path):
    content = fake_configuration(tmp_path).model_dump(by_alias=True, exclude_none=True)
    content["datasets"]["rewritten"]["recaption"] |= {"keep_original": True, "shards": 16}
    plan = Plan(Configuration.model_validate(content))
    for name in ("a", "b", "c"):
        expected = [shard_name("rewritten", name, 16)]
        assert _shards_of("rewritten", pa.chunked_array([[f"{name}~1"]]), plan) == expected


def test_examples_of_variants_stand_beside_their_originals(tmp_path, monkeypatch):
    content = fake_configuration(tmp_path).model_dump(by_alias=True, exclude_none=True)
    content["datasets"]["rewritten"]["recaption"]["keep_original"] = True
    layout, plan = Layout(tmp_path / "results"), Plan(Configuration.model_validate(content))
    write_table(layout.rows("weak"), pa.table([["a", "b"], ["pool", "pool"]], ROWS))
    after = pa.table([["a", "a~1", "b", "b~1"], ["pool", "rewritten", "pool", "rewritten"]], ROWS)
    write_table(layout.rows("rewritten"), after)
    monkeypatch.setattr(examples, "_readable", lambda *_: True)
    [found] = [each for each in examples._rewritten(layout, plan, Scores(layout)) if each["dataset"] == "rewritten"]
    pairs = zip(*(found["rows"][side]["id"].to_pylist() for side in ("before", "after")), strict=True)
    assert sorted(pairs) == [("a", "a~1"), ("b", "b~1")]

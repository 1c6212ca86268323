"""What decides whether rules run again: models by their weights, the report by what it shows."""

from __future__ import annotations

import pytest
from fake_results import fake_configuration

from bettersynth.configuration.types import Configuration
from bettersynth.graph import Graph, model_identity
from bettersynth.layout import Layout
from bettersynth.plan import Plan
from bettersynth.publish import sha256_folder


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


@pytest.mark.parametrize(("key", "value"), [("note", "another"), ("published_rows", 12345)])
def test_the_report_is_made_again_when_what_it_says_of_a_dataset_changes(tmp_path, key, value):
    def parameters(content):
        configuration = Configuration.model_validate(content)
        return Graph(configuration, Layout(tmp_path / "results"), Plan(configuration), list).report()

    content = fake_configuration(tmp_path).model_dump(by_alias=True, exclude_none=True)
    before = parameters(content)
    next(iter(content["datasets"].values()))[key] = value
    assert parameters(content) != before

import os

import pytest

from bettersynth.core import digests
from bettersynth.core.digests import file_digests, sha256_folder
from bettersynth.core.publish import sha256_bytes


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model folder, a cache of its own, and a record of which files were read."""
    folder = tmp_path / "model"
    (folder / "vae").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "vae/config.json", "README.md", ".gitattributes"):
        (folder / name).write_text(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def files_read(monkeypatch):
    read = []
    original = digests.sha256_file
    monkeypatch.setattr(digests, "sha256_file", lambda path: read.append(path.name) or original(path))
    return read


def test_a_second_look_reads_nothing(model, files_read):
    first = sha256_folder(model)
    files_read.clear()
    assert sha256_folder(model) == first
    assert files_read == []


def test_an_altered_byte_is_seen_even_when_size_and_time_are_as_before(model, files_read):
    first = sha256_folder(model)
    weights = model / "model.safetensors"
    stat = weights.stat()
    weights.write_bytes(b"M" + weights.read_bytes()[1:])
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    files_read.clear()
    assert sha256_folder(model) != first
    assert files_read == ["model.safetensors"], "the others are not read again"


def test_documentation_and_hidden_files_do_not_count(model):
    first = sha256_folder(model)
    (model / "README.md").write_text("other words")
    (model / ".gitattributes").write_text("other")
    assert sha256_folder(model) == first
    (model / "vae" / "config.json").write_text("other")
    assert sha256_folder(model) != first


def test_the_digest_of_a_file_is_that_of_its_bytes(model):
    assert sha256_folder(model / "config.json") == sha256_bytes(b"config.json")
    assert file_digests(model)["vae/config.json"] == sha256_bytes(b"vae/config.json")


def test_a_home_that_cannot_be_written_to_is_no_obstacle(model, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert sha256_folder(model) == sha256_folder(model)

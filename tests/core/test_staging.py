import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from wheels import write_wheel

from bettersynth.core import resources as staging
from bettersynth.core.digests import sha256_folder
from bettersynth.core.publish import sha256_bytes, sha256_file, sha256_json
from bettersynth.core.resources import RESOURCES, StagingError, fetch_resources, staged


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A folder of wheels that pip takes the place of an index, and a resource table for it."""
    wheels = tmp_path / "wheels"
    files = {
        "tiny_words/list/a.txt": "a\n",
        "tiny_words/list/deep/b.txt": "b\n",
        "tiny_words/one.bin": "one",
    }
    wheel = write_wheel(wheels, "tiny-words", files)
    common = {"package": "tiny-words", "version": "1.0", "sha256": sha256_file(wheel), "licence": "MIT"}
    words = sha256_json({"a.txt": sha256_bytes(b"a\n"), "deep/b.txt": sha256_bytes(b"b\n")})
    one = sha256_bytes(b"one")
    table = (
        staging.Resource(name="words", member="tiny_words/list/", target="words-1.0", contents=words, **common),
        staging.Resource(name="one", member="tiny_words/one.bin", target="files/one.bin", contents=one, **common),
    )
    monkeypatch.setattr(staging, "RESOURCES", table)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return wheels


def test_fetches_unpacks_and_records(registry, tmp_path):
    models = tmp_path / "models"

    assert fetch_resources(models) == ["words", "one"]
    files = {path.relative_to(models).as_posix() for path in models.rglob("*") if path.is_file()}
    assert files == {"words-1.0/a.txt", "words-1.0/deep/b.txt", "files/one.bin", "resources.json"}
    manifest = json.loads((models / "resources.json").read_text())
    assert manifest["words"]["sha256"] == sha256_folder(models / "words-1.0")
    assert manifest["one"]["wheel"] == "tiny-words==1.0"


def test_second_fetch_does_nothing_and_a_lost_part_comes_back(registry, tmp_path, monkeypatch):
    models = tmp_path / "models"
    fetch_resources(models)
    with monkeypatch.context() as offline:
        offline.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
        assert fetch_resources(models) == []
    (models / "files" / "one.bin").unlink()

    assert fetch_resources(models) == ["one"]
    assert (models / "files" / "one.bin").read_text() == "one"


def test_a_changed_byte_is_mended(registry, tmp_path):
    models = tmp_path / "models"
    fetch_resources(models)
    (models / "words-1.0" / "a.txt").write_text("b\n")
    assert fetch_resources(models) == ["words"]
    assert (models / "words-1.0" / "a.txt").read_text() == "a\n"


def test_other_bytes_are_not_unpacked(registry, tmp_path, monkeypatch):
    altered = tuple(entry._replace(sha256="0" * 64) for entry in staging.RESOURCES)
    monkeypatch.setattr(staging, "RESOURCES", altered)
    with pytest.raises(StagingError, match=r"tiny_words-1.0-py3-none-any.whl: sha256 .*, expected 0000"):
        fetch_resources(tmp_path / "models")

    assert not (tmp_path / "models" / "words-1.0").exists()


def test_offline_says_what_to_do(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))

    with pytest.raises(StagingError, match=r"words: pip could not fetch tiny-words==1.0.*make setup") as failure:
        fetch_resources(tmp_path / "models")
    assert "models/words-1.0" in str(failure.value)


def test_missing_resource_names_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(StagingError, match=r"models/en_core_web_md-3.8.0: not staged; run `make setup`"):
        staged("spacy_en")


def test_every_resource_is_pinned():
    for entry in RESOURCES:
        assert len(entry.sha256) == 64, entry.name
        assert entry.version[0].isdigit(), entry.name
        assert entry.licence, entry.name


def test_is_light_enough_for_the_graph():
    program = (
        "import sys, bettersynth.core.resources, bettersynth.configuration.operators; print('torch' in sys.modules)"
    )
    scripts = str(Path(__file__).parents[2] / "scripts")
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": scripts},
        capture_output=True,
        text=True,
        check=True,
    )

    assert found.stdout == "False\n"

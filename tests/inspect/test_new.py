"""`make new`: from pairs as they lie to a configuration that loads, with nothing written by hand."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from pairs import pair, write_image, write_jsonl
from storing import Stored, add, write_parquet, write_tars, write_zip
from workflow import CONFIGURATION

from bettersynth.cli.main import commands
from bettersynth.configuration import load
from bettersynth.core.errors import PersonError
from bettersynth.inspect.holdings import HoldingsError, look_into

CAPTIONS = [f"a {'very ' * (number % 5)}plain square number {number}" for number in range(20)]


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def stored(tmp_path) -> list[Stored]:
    paths = [write_image(tmp_path / "files" / f"{number:03d}.jpg", (30 + number, 20)) for number in range(20)]
    return [Stored(path.stem, caption, path) for path, caption in zip(paths, CAPTIONS, strict=True)]


def new(*arguments: str) -> str:
    """What the command says."""
    found = CliRunner().invoke(commands, ["new", *arguments])
    if found.exception:
        raise found.exception
    return found.output


def write_notes(path: Path, stored: list[Stored]) -> None:
    """A table without pictures, as img2dataset leaves beside its tars."""
    pq.write_table(pq.read_table(write_parquet(path, stored), columns=["id"]), path)


@pytest.mark.parametrize("kind", ["tars", "nested tars", "parquet", "zip", "lines"])
def test_a_path_becomes_a_configuration_that_loads(kind, tmp_path, stored):
    folder = tmp_path / "pairs"
    match kind:
        case "tars":
            write_tars(folder, stored, 3)
            pq.write_table(
                pq.read_table(write_parquet(tmp_path / "a.parquet", stored), columns=["id"]), folder / "a.parquet"
            )
        case "nested tars":
            write_tars(folder / "one", stored, 2)
        case "parquet":
            write_parquet(folder / "train.parquet", stored)
        case "zip":
            write_zip(folder, stored)
        case "lines":
            folder.mkdir()
            write_jsonl(folder / "raw.jsonl", [pair(one.id, one.caption, one.image.name) for one in stored])
            (folder / "images").symlink_to(stored[0].image.parent)
    said = new(str(folder))
    assert "20 pairs" in said and "captions of 5 to 9 words, half of them of 7 at most" in said
    assert "pictures of 30-49 × 20-20 pixels" in said and "make dry-run CONFIG=config/pairs.yaml" in said
    written = load(Path("config/pairs.yaml"))
    assert written.datasets["kept"].verb.root["words_num"].min == 5 and written.analyses["whole"]
    assert (written.pool.images is None) == (kind not in ("zip", "lines"))
    with pytest.raises(PersonError, match=r"config/pairs\.yaml: is there already"):
        new(str(folder))


def test_what_a_file_calls_its_parts_is_found_and_what_is_given_counts(tmp_path, stored):
    (tmp_path / "odd").mkdir()
    for number in range(2):  # as tars that begin their keys anew, captions in the JSON
        with tarfile.open(tmp_path / "odd" / f"{number}.tar", "w") as tar:
            for place, one in enumerate(stored[number::2]):
                add(tar, f"{place:03d}.jpg", one.image.read_bytes())
                add(tar, f"{place:03d}.json", json.dumps({"TEXT": one.caption, "url": "x"}).encode())
    found = look_into(str(tmp_path / "odd"), {}, [])
    assert found.keys == {"caption": "json.TEXT", "id": "hash"} and found.records == 20
    assert "json.url" in found.fields and not found.problems
    table = pq.read_table(write_parquet(tmp_path / "a.parquet", stored)).rename_columns(["id", "picture", "alt_text"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert look_into("a.parquet", {}, []).keys == {"caption": "alt_text", "image": "picture"}
    assert look_into("a.parquet", {"id": "hash"}, []).keys["id"] == "hash"


def test_what_no_pool_can_be_made_of_is_said_with_what_to_do(tmp_path, stored):
    said = {
        "files": "one tar is WebDataset: tar --sort=name -cf files.tar -C files",
        "none": "none: no such file",
        "empty": r"holds no \.tar, \.parquet, \.jsonl or \.json files",
        "several": "holds several files of lines; name one: a.jsonl, b.jsonl",
        "lost.jsonl": r"its pictures, such as gone\.jpg, are in none of .*; say where they are by IMAGES=",
        "table.parquet": "say by `caption` in `pool.files`|no column",
    }
    (tmp_path / "empty").mkdir()
    (tmp_path / "several").mkdir()
    for name in "ab":
        write_jsonl(tmp_path / "several" / f"{name}.jsonl", [pair(name)])
    write_jsonl(tmp_path / "lost.jsonl", [pair("x", image="gone.jpg")])
    pq.write_table(
        pq.read_table(write_parquet(tmp_path / "a.parquet", stored), columns=["id"]), tmp_path / "table.parquet"
    )
    for path, words in said.items():
        with pytest.raises(HoldingsError, match=words):
            look_into(path, {}, [])
    found = look_into("lost.jsonl", {}, [str(tmp_path / "files")])
    assert found.problems == {"image missing": 1}


def test_training_is_taken_over_from_a_configuration_that_has_it(tmp_path, stored):
    Path("like.yaml").write_text(yaml.safe_dump(CONFIGURATION))
    write_tars(tmp_path / "pairs", stored)
    new("pairs", "--name", "mine", "--like", "like.yaml")
    written = load(Path("config/mine.yaml"))
    assert list(written.recipes) == ["best", "random_like_best"] and written.training is not None
    assert written.operators["similarity"].model == "clip" and "blip2" not in written.models

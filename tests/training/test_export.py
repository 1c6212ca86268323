"""Exports: what other tools read back is the dataset, row for row, and the bytes are the same every time."""

import hashlib
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
import webdataset
from pairs import configure_pairs, llava_pair, make_pool, pair, write_image
from PIL import Image

from bettersynth.configuration.datasets import EXPORT_FORMATS
from bettersynth.configuration.types import Configuration
from bettersynth.core.publish import read_json, sha256_file
from bettersynth.core.records import IMAGE_TOKEN, ROWS, Record, caption_of, text_of, write_records
from bettersynth.core.tables import read_table, write_table
from bettersynth.datasets.build import build_dataset
from bettersynth.training import export
from bettersynth.training.export import export_dataset

CAPTIONS = {"a": "a red dog", "b": "été « ✓ »", "c": 'says "hi" \u2028 there'}


@pytest.fixture
def world(tmp_path):
    """Three records, of which `b` was drawn anew, all of them twice: dataset `twice`."""
    for name, colour in zip(CAPTIONS, ("red", "green", "blue"), strict=True):
        write_image(tmp_path / "images" / f"{name}.JPG", colour=colour)
    (tmp_path / "questions.json").write_text(json.dumps([llava_pair(n, "", question=f"{n}?") for n in CAPTIONS]))
    configuration = configure_pairs(
        tmp_path,
        {"one": [pair(name, caption, f"images/{name}.JPG") for name, caption in CAPTIONS.items()]},
        pool={"restore": [str(tmp_path / "questions.json")]},
        datasets={
            "some": {"from": "pool", "sample": {"fraction": 0.4}},
            "drawn": {"from": "some", "redraw": {"redrawer": "sd"}},
            "spliced": {"from": "pool", "splice": "drawn"},
            "twice": {"from": "spliced", "repeat": 2},
        },
    )
    layout, plan = make_pool(configuration, tmp_path)
    image = write_image(layout.source_images("drawn") / "b.png", colour="yellow")
    write_records(layout.records("drawn", "drawn-0000"), [Record("b", text_of(CAPTIONS["b"]), [image.name], "drawn")])
    write_table(layout.rows("spliced"), pa.table([["a", "b", "c"], ["pool", "drawn", "pool"]], ROWS))
    build_dataset("twice", configuration, layout, plan)
    return configuration, layout, plan


def exported(world, form):
    configuration, layout, plan = world
    card = export_dataset("twice", form, configuration, layout, plan)
    folder = layout.export("twice", form)
    assert read_json(folder / "card.json") == card
    assert card["rows"] == 6
    assert card["files"] == {name: sha256_file(folder / name) for name in card["files"]}
    return folder


def is_yellow(path):
    """Whether the image at this path is the redrawn one."""
    return Image.open(path).convert("RGB").getpixel((2, 2)) == (255, 255, 0)


def test_data_juicer_reads_its_own_form_back(world):
    folder = exported(world, "data_juicer")
    lines = (folder / "twice.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    records = [json.loads(line) for line in lines]
    assert [record["id"] for record in records] == list("abcabc")
    assert all(set(record) == {"id", "text", "images"} for record in records)
    assert [caption_of(record["text"]) for record in records[:3]] == list(CAPTIONS.values())
    assert [is_yellow(folder / record["images"][0]) for record in records[:3]] == [False, True, False]
    assert records[0]["images"] == ["../../../../images/a.JPG"], "as Data-Juicer takes it: from the file's folder"


def test_an_export_can_be_taken_in_as_a_pool_again(world, tmp_path):
    folder = exported(world, "data_juicer")
    raw = [json.loads(line) for line in (folder / "twice.jsonl").open(encoding="utf-8")]
    processed = [{**record, "images": [str((folder / path).resolve()) for path in record["images"]]} for record in raw]
    for records in (raw, processed):  # Data-Juicer writes absolute paths
        images = [str(folder), world[0].pool.images]
        again = configure_pairs(tmp_path / "again", {"one": records[:3]}, pool={"images": images})
        layout, _ = make_pool(again, tmp_path / "again")
        assert read_table(layout.index)["id"].to_pylist() == list("abc")


def test_llava_has_the_restored_questions(world):
    entries = json.loads((exported(world, "llava") / "twice.json").read_text(encoding="utf-8"))
    assert [entry["conversations"][0]["value"] for entry in entries[:3]] == [
        "a?\n<image>",
        "b?\n<image>",
        "c?\n<image>",
    ]
    assert [entry["conversations"][1]["value"] for entry in entries] == [*CAPTIONS.values()] * 2
    assert is_yellow(Path(world[0].pool.images) / entries[1]["image"])


def test_parquet_has_source_and_paths(world):
    table = read_table(exported(world, "parquet") / "twice.parquet")
    assert table.column_names == ["id", "source", "text", "images"]
    assert table["source"].to_pylist() == ["pool", "drawn", "pool"] * 2
    assert is_yellow(Path(world[0].pool.images) / table["images"][1].as_py()[0])


def test_datasets_opens_parquet_with_the_pictures_in_it(world, tmp_path):
    import datasets

    files = str(exported(world, "huggingface") / "*.parquet")
    rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["caption"] == [*CAPTIONS.values()] * 2 and rows["id"] == list("abcabc")
    assert [image.convert("RGB").getpixel((2, 2)) == (255, 255, 0) for image in rows["image"][:3]] == [
        False,
        True,
        False,
    ]
    again = {"files": [{"name": "again", "path": files}]}
    configuration = Configuration.model_validate({"name": "again", "pool": again})
    layout, _ = make_pool(configuration, tmp_path / "again")
    assert read_table(layout.index)["id"].to_pylist() == list("abc"), "a repeated row is one record"


def test_webdataset_reads_images_and_captions_back(world, monkeypatch):
    monkeypatch.setattr(export, "SAMPLES_PER_TAR", 4)
    folder = exported(world, "webdataset")
    tars = sorted(str(path) for path in folder.glob("*.tar"))
    assert [Path(tar).name for tar in tars] == ["twice-000000.tar", "twice-000001.tar"]
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert [sample["txt"].decode() for sample in samples] == [*CAPTIONS.values()] * 2
    assert [json.loads(sample["json"])["id"] for sample in samples] == list("abcabc")
    assert samples[0]["jpg"] == (Path(world[0].pool.images) / "images" / "a.JPG").read_bytes()
    decoded = list(webdataset.WebDataset(tars, shardshuffle=False).decode("pil"))
    assert [sample["jpg"].size for sample in decoded] == [(24, 16)] * 6, "PNGs too have the one extension"


def test_datasets_reads_every_picture_of_the_tars_where_kinds_mix(world, tmp_path):
    import datasets

    files = str(exported(world, "webdataset") / "*.tar")
    rows = datasets.load_dataset("webdataset", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert [image.size for image in rows["jpg"]] == [(24, 16)] * 6
    assert rows["txt"] == [*CAPTIONS.values()] * 2


def test_a_tar_holds_nothing_of_this_machine(world):
    with tarfile.open(exported(world, "webdataset") / "twice-000000.tar") as tar:
        heads = {(member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode) for member in tar}
    assert heads == {(0, 0, 0, "", "", 0o644)}


def test_a_record_with_two_images_keeps_both(tmp_path):
    write_image(tmp_path / "images" / "two.jpg")
    record = {"id": "x", "text": f"{IMAGE_TOKEN}{IMAGE_TOKEN} both", "images": ["images/one.png", "images/two.jpg"]}
    datasets = {"all": {"from": "pool", "repeat": 1}}
    configuration = configure_pairs(tmp_path, {"one": [record]}, datasets=datasets)
    layout, plan = make_pool(configuration, tmp_path)
    build_dataset("all", configuration, layout, plan)
    export_dataset("all", "webdataset", configuration, layout, plan)
    with tarfile.open(layout.export("all", "webdataset") / "all-000000.tar") as tar:
        assert tar.getnames() == ["000000000.0.jpg", "000000000.1.jpg", "000000000.json", "000000000.txt"]
    with pytest.raises(ValueError, match="`x` has 2 distinct images"):
        export_dataset("all", "llava", configuration, layout, plan)
    assert not layout.export("all", "llava").exists()


@pytest.mark.parametrize("form", EXPORT_FORMATS)
def test_an_export_has_the_same_bytes_every_time(world, form):
    def contents():
        files = [path for path in exported(world, form).iterdir() if path.name != "card.json"]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    assert contents() == contents()

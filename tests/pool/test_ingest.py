"""Ingest: every line is a record or is in quarantine with its reason, and the ledger adds up."""

import gzip
import io
import json
import re
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hard_pairs import FAULTS, line, with_text
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import configure_pairs, llava_pair, make_pool, pair, write_image, write_jsonl

from bettersynth.configuration import ConfigurationError
from bettersynth.configuration.pool import Pool
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, sha256_file
from bettersynth.core.raw import (
    OtherKindError,
    RecordProblem,
    other_kind,
    parse_record,
    raw_lines,
)
from bettersynth.core.records import END_OF_CHUNK, IMAGE_TOKEN, Record, read_records, text_of
from bettersynth.core.tables import read_table
from bettersynth.pool.ingest import ingest_file
from bettersynth.workflow.fingerprints import Fingerprints


def take_in(folder, content: bytes, name="raw.jsonl", shards=2, **pool):
    """Take a raw file of these bytes in; returns ledger, records by id, and quarantine."""
    write_image(folder / "images" / "one.png")
    (folder / name).write_bytes(content)
    entry = {"name": "raw", "path": str(folder / name), "shards": shards}
    settings = Pool.model_validate({"files": [entry], "images": str(folder), **pool})
    layout = Layout(folder / "results")
    ledger = ingest_file(settings, settings.files[0], layout)
    shards_read = [layout.records("pool", f"raw-{number:04d}") for number in range(shards)]
    records = {record.id: record for path in shards_read for record in read_records(path)}
    quarantine = [json.loads(line) for line in layout.quarantine("raw").read_text(encoding="utf-8").splitlines()]
    assert ledger["lines"] == ledger["rows"] + sum(ledger["quarantined"].values())
    assert len(records) == ledger["rows"] == read_table(layout.order("raw")).num_rows
    assert len(quarantine) == sum(ledger["quarantined"].values())
    return ledger, records, quarantine


def test_what_no_training_file_can_hold_is_refused_before_it_is_scored(tmp_path):
    write_image(tmp_path / "images" / "two.png")
    text = f"{IMAGE_TOKEN} {IMAGE_TOKEN} both {END_OF_CHUNK}"
    records = [
        *(pair(f"00{number}") for number in range(5)),
        {"id": "005", "text": text, "images": ["images/one.png", "images/two.png"]},
        {"id": "006", "text": text, "images": ["images/one.png", "images/one.png"]},
        pair(7),
        llava_pair("own", "x"),
        llava_pair("twice", "x", question="<image> again"),
        llava_pair("token", "x", question="What <eos>?"),
    ]
    (tmp_path / "stage_1.json").write_text(json.dumps([llava_pair(f"00{number}", "x") for number in range(8)]))
    pool = {"restore": [str(tmp_path / "stage_1.json")]}
    configuration = configure_pairs(tmp_path, {"one": records}, pool=pool, recipes={"whole": {"dataset": "pool"}})
    assert configuration.trains
    layout, (file,) = Layout(tmp_path / "results"), configuration.pool.files
    ledger = ingest_file(configuration.pool, file, layout, trains=True)
    assert ledger["quarantined"] == {"no question": 1, "question": 2, "several images": 1}
    refused = [json.loads(line) for line in layout.quarantine("one").read_text().splitlines()]
    assert any("`7` (lost its leading zeros? there is `007`)" in item["detail"] for item in refused)
    assert ingest_file(configuration.pool, file, layout)["rows"] == 11, "scored alone, nothing stands against them"


def test_ids_that_lost_their_zeros_end_ingest_when_they_are_most(tmp_path):
    (tmp_path / "stage_1.json").write_text(json.dumps([llava_pair(f"00{number}", "x") for number in range(8)]))
    pool = {"restore": [str(tmp_path / "stage_1.json")]}
    configuration = configure_pairs(tmp_path, {"one": [pair(number) for number in range(8)]}, pool=pool)
    (file,) = configuration.pool.files
    with pytest.raises(ValueError, match=r"8 of 8 records have no question in .*`0` \(lost its .* there is `000`\)"):
        ingest_file(configuration.pool, file, Layout(tmp_path / "results"), trains=True)


def other_kinds(folder):
    """Files that are not read as records, and what is said of them."""
    table = pa.table({"id": ["a"], "text": ["b"]})
    pq.write_table(table, folder / "pool.parquet")
    (folder / "text.jsonl").write_bytes(line() * 50)
    with tarfile.open(folder / "pool.tar", "w") as tar, tarfile.open(folder / "pool.tar.gz", "w:gz") as zipped:
        tar.add(folder / "text.jsonl", "text.jsonl")
        zipped.add(folder / "text.jsonl", "text.jsonl")
    with zipfile.ZipFile(folder / "pool.zip", "w") as archive:
        archive.write(folder / "text.jsonl")
    text = (folder / "text.jsonl").read_text()
    (folder / "bom.jsonl").write_text(text, encoding="utf-16")
    (folder / "no-bom.jsonl").write_text(text, encoding="utf-16-be")
    (folder / "named.jsonl").write_bytes(gzip.compress(text.encode()))
    (folder / "other.json").write_bytes(bytes(range(256)) * 9)
    (folder / "folder.jsonl").mkdir()
    return {
        "pool.parquet": "a Parquet file",
        "pool.tar": "a tar archive",
        "pool.tar.gz": "a tar archive",
        "pool.zip": "a zip archive",
        "bom.jsonl": "UTF-16.*iconv",
        "no-bom.jsonl": "binary, or text in UTF-16",
        "named.jsonl": r"compressed by gzip.*end its name in \.gz",
        "other.json": "binary",
        "folder.jsonl": "a folder",
    }


def test_a_file_of_another_kind_is_refused_at_once_with_what_is_supported(tmp_path):
    for name, said in other_kinds(tmp_path).items():
        assert re.search(rf"{name}: .*{said}", other_kind(tmp_path / name)), name
        assert "one JSON list" in other_kind(tmp_path / name)
        if name != "folder.jsonl":
            with pytest.raises(OtherKindError, match=said):
                list(raw_lines(tmp_path / name))
    assert other_kind(tmp_path / "text.jsonl") is None and other_kind(tmp_path / "none.jsonl") is None
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"{}" * 9999)[:20])
    assert other_kind(tmp_path / "cut.jsonl.gz") is None, "the reader says what is wrong with it"


@pytest.mark.parametrize("key", ["pool.files.one", "pool.restore"])
def test_the_graph_refuses_files_of_another_kind(tmp_path, key):
    other_kinds(tmp_path)
    restore = {"restore": [str(tmp_path / "pool.tar")]} if key == "pool.restore" else {}
    configuration = configure_pairs(tmp_path, {"one": [pair("a")]}, pool=restore)
    if not restore:
        (tmp_path / "one.jsonl").write_bytes((tmp_path / "pool.tar").read_bytes())
    layout = Layout(tmp_path / "results")
    with pytest.raises(ConfigurationError, match=f"{key}: .*a tar archive"):
        Fingerprints(configuration, layout).check_inputs("config.yaml")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_has_its_reason(fault):
    raw, reason = FAULTS[fault]
    with pytest.raises(RecordProblem) as caught:
        parse_record(raw)
    assert caught.value.reason == reason, caught.value.detail


def test_the_ledger_adds_up_over_every_fault_at_once(tmp_path):
    content = b"\n".join([line(id="first"), *(raw for raw, _ in FAULTS.values()), b"", line(id="last"), b"  \r", b""])
    ledger, records, quarantine = take_in(tmp_path, content)
    assert set(records) == {"first", "last"}
    assert ledger["lines"] == len(FAULTS) + 2
    assert ledger["blank"] == 2
    assert [(entry["line"], entry["reason"]) for entry in quarantine] == [
        (number, str(reason)) for number, (_, reason) in enumerate(FAULTS.values(), 2)
    ]
    assert all(entry["file"].endswith("raw.jsonl") and entry["detail"] for entry in quarantine)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_image_faults_are_quarantined_with_their_reasons(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "out.png").symlink_to("/etc/hostname")
    write_image(tmp_path / "large.png", (101, 100))
    paths = {
        "images/absent.png": "image missing",
        "empty.jpg": "image header",
        "text.jpg": "image format",
        "large.png": "image too large",
        "../one.png": "image path",
        "out.png": "image path",
        "https://example.org/one.png": "image path",
    }
    content = b"\n".join(line(id=path, images=[path]) for path in ["images/one.png", *paths])
    ledger, records, quarantine = take_in(tmp_path, content, max_pixels=10_000)
    assert set(records) == {"images/one.png"}
    assert {json.loads(entry["raw"])["id"]: entry["reason"] for entry in quarantine} == paths
    assert ledger["quarantined"] == {
        "image format": 1,
        "image header": 1,
        "image missing": 1,
        "image path": 3,
        "image too large": 1,
    }


def test_a_caption_longer_than_the_limit_is_quarantined(tmp_path):
    records = [pair("fits", "x" * 20), pair("long", "x" * 21)]
    content = "\n".join(json.dumps(record) for record in records).encode()
    _, kept, quarantine = take_in(tmp_path, content, max_caption=20)
    assert set(kept) == {"fits"}
    assert [(entry["reason"], entry["detail"]) for entry in quarantine] == [
        ("caption too long", "21 characters; `pool.max_caption` is 20")
    ]
    assert Pool.model_fields["max_caption"].default < 1_000_000, "spaCy's limit"


def test_the_first_of_equal_ids_stays_and_numbers_are_ids_too(tmp_path):
    content = b"\n".join([line(id=7), line(id="7", text=text_of("another")), line(id=8)])
    _, records, quarantine = take_in(tmp_path, content)
    assert records["7"].text == text_of("a teal square")
    assert set(records) == {"7", "8"}
    assert quarantine[0]["reason"] == "duplicate id"
    assert "line 1" in quarantine[0]["detail"]


def test_a_missing_id_comes_from_the_content_wherever_the_line_stands(tmp_path):
    one, two = line(id=None), line(id=None, text=text_of("another"))
    _, records, _ = take_in(tmp_path, one + b"\n" + two)
    _, reordered, _ = take_in(tmp_path, line(id="x") + b"\n" + two + b"\n" + one)
    assert len(records) == 2
    assert set(records) < set(reordered)


def test_only_a_line_feed_ends_a_line_and_windows_files_are_read(tmp_path):
    caption = "one\u2028two\u2029three\x85four"
    content = b"\xef\xbb\xbf" + line(id="a", text=text_of(caption)) + b"\r\n" + line(id="b") + b"\r\n"
    _, records, quarantine = take_in(tmp_path, content)
    assert not quarantine
    assert records["a"].text == text_of(caption)


def test_a_long_refused_line_is_cut_in_the_quarantine(tmp_path):
    _, _, quarantine = take_in(tmp_path, b'{"id": "' + b"x" * 1_000_000)
    assert len(quarantine[0]["raw"]) == 2000


@pytest.mark.parametrize(
    "name", ["raw.jsonl", "raw.jsonl.gz", "raw.jsonl.zst", "raw.json", "raw.json.gz", "raw.json.zst"]
)
def test_every_kind_of_file_gives_the_same_pool(tmp_path, name):
    captions = {f"{number:03d}": f"caption {number} é" for number in range(300)}
    plain = b"\n".join(line(id=key, text=text_of(value)) for key, value in captions.items())
    entries = [llava_pair(key, value) for key, value in captions.items()]
    content = json.dumps(entries, indent=4).encode() if ".json" in name and ".jsonl" not in name else plain
    content = gzip.compress(content) if name.endswith("gz") else content
    content = zstandard.compress(content) if name.endswith("zst") else content
    ledger, records, _ = take_in(tmp_path, content, name)
    expected, _, _ = take_in(tmp_path / "plain", plain)
    assert ledger["shards"] == expected["shards"]
    digest = sha256_file(tmp_path / "images" / "one.png")
    assert records["007"] == Record("007", text_of("caption 7 é"), ["images/one.png"], image_sha256=[digest])


@pytest.mark.parametrize("name", ["raw.jsonl.gz", "raw.jsonl.zst"])
@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_a_compressed_file_cut_short_fails_with_its_name(tmp_path, name, kept):
    content = b"\n".join(line(id=f"{number}") for number in range(5000))
    packed = gzip.compress(content) if name.endswith("gz") else zstandard.compress(content)
    with pytest.raises(ValueError, match=rf"{name}: damaged compressed file"):
        take_in(tmp_path, packed[: int(len(packed) * kept)], name)


def test_concatenated_compressed_files_are_read_whole(tmp_path):
    packed = zstandard.compress(line(id="a") + b"\n") + zstandard.compress(line(id="b"))
    assert set(take_in(tmp_path, packed, "raw.jsonl.zst")[1]) == {"a", "b"}


@pytest.mark.parametrize("cut", [1, 3, 100])
def test_a_list_that_breaks_off_fails_with_the_entry(tmp_path, cut):
    content = json.dumps([llava_pair("a", "one"), llava_pair("b", "two")]).encode()
    with pytest.raises(ValueError, match=r"breaks off or is damaged at entry"):
        take_in(tmp_path, content[:-cut], "raw.json")


def test_llava_entries_that_are_no_caption_of_one_image_are_quarantined(tmp_path):
    good = llava_pair("good", "  a teal square\n")
    turns = good["conversations"]
    entries = {
        "good": good,
        "text only": {key: value for key, value in good.items() if key != "image"},
        "two rounds": {**good, "conversations": turns * 2},
        "answer only": {**good, "conversations": turns[1:]},
        "no token": {**good, "conversations": [{"from": "human", "value": "What?"}, turns[1]]},
        "no words": {**good, "conversations": [turns[0], {"from": "gpt", "value": None}]},
        "control": {**good, "conversations": [turns[0], {"from": "gpt", "value": "an <image> here"}]},
    }
    content = json.dumps([{**entry, "id": name} for name, entry in entries.items()]).encode()
    _, records, quarantine = take_in(tmp_path, content, "raw.json")
    assert records["good"].text == text_of("a teal square")
    assert {json.loads(entry["raw"])["id"]: entry["reason"] for entry in quarantine} == {
        "text only": "no image list",
        "two rounds": "not one question and answer",
        "answer only": "not one question and answer",
        "no token": "no image token",
        "no words": "no text",
        "control": "control string",
    }


def test_both_published_forms_of_the_text_are_records():
    spaced = f"{IMAGE_TOKEN} a teal square {END_OF_CHUNK}"  # as image_captioning_mapper writes it
    assert parse_record(with_text(spaced)).text == spaced
    assert parse_record(with_text(f"{IMAGE_TOKEN}\na teal square")).text == f"{IMAGE_TOKEN}\na teal square"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none()), max_size=8), st.integers(1, 64))
def test_a_list_is_cut_at_its_entries_whatever_they_hold(entries, chunk):
    import bettersynth.core.raw as raw

    encoded = json.dumps(entries, ensure_ascii=False, indent=chunk % 3 or None).encode("utf-8", "surrogatepass")
    try:
        encoded.decode()
    except UnicodeDecodeError:
        return
    before, raw._CHUNK = raw._CHUNK, chunk
    try:
        found = list(raw._list_entries(io.BytesIO(encoded[1:]), encoded[:1], "list.json"))
    finally:
        raw._CHUNK = before
    assert [json.loads(entry.raw) for entry in found] == entries
    assert [entry.number for entry in found] == list(range(1, len(entries) + 1))


def test_lines_longer_than_a_chunk_and_a_last_line_without_end(tmp_path):
    content = b"\n".join([b"a" * 3_000_000, b"", b"b" * 2_000_000])
    (tmp_path / "long.jsonl").write_bytes(content)
    assert [line.raw for line in raw_lines(tmp_path / "long.jsonl")] == content.split(b"\n")


def test_the_same_records_in_another_order_make_the_same_shards(tmp_path):
    records = [pair(f"{number}", f"caption {number}") for number in range(50)]
    for name, order in (("a", records), ("b", records[::-1])):
        make_pool(configure_pairs(tmp_path / name, {"raw": order}), tmp_path / name)
    ledgers = [read_json(Layout(tmp_path / name / "results").file_ledger("raw")) for name in "ab"]
    assert ledgers[0]["shards"] == ledgers[1]["shards"]
    orders = [read_table(Layout(tmp_path / name / "results").order("raw"))["id"].to_pylist() for name in "ab"]
    assert orders[0] == orders[1][::-1] == [record["id"] for record in records]


def test_the_earlier_file_wins_an_id_that_two_files_hold(tmp_path):
    one = [pair("a"), pair("b"), pair("c", image="images/absent.png")]
    two = [pair("d"), pair("b", "another"), pair("c")]
    layout, _ = make_pool(configure_pairs(tmp_path, {"one": one, "two": two}), tmp_path)
    index = read_table(layout.index).to_pylist()
    assert [row["id"] for row in index] == ["a", "b", "d", "c"], "files as configured, lines within"
    assert [row["shard"].split("-")[0] for row in index] == ["one", "one", "two", "two"]
    card = read_json(layout.index_card)
    assert card["rows_by_file"] == {"one": 2, "two": 2}
    assert (card["duplicate_across_files"], card["duplicate_examples"]) == (1, ["b"])
    assert card["sha256"] == sha256_file(layout.index)


def test_adding_a_file_leaves_the_shards_of_the_others(tmp_path):
    one = [pair(f"{number}") for number in range(20)]
    alone, _ = make_pool(configure_pairs(tmp_path, {"one": one}), tmp_path)
    before = read_json(alone.file_ledger("one"))["shards"]
    both, _ = make_pool(configure_pairs(tmp_path, {"one": one, "two": [pair("x")]}), tmp_path)
    assert read_json(both.file_ledger("one"))["shards"] == before


def test_empty_files_and_shards_are_fine(tmp_path):
    layout, plan = make_pool(configure_pairs(tmp_path, {"empty": [], "one": [pair("a")]}), tmp_path)
    assert read_table(layout.index)["id"].to_pylist() == ["a"]
    assert all(layout.records("pool", shard).exists() for shard in plan.shards("pool"))


def test_a_missing_image_folder_is_named_and_quarantines_nothing(tmp_path):
    path = write_jsonl(tmp_path / "raw.jsonl", [pair("a")])
    pool = Pool.model_validate({"files": [{"name": "raw", "path": str(path)}], "images": str(tmp_path / "absent")})
    with pytest.raises(FileNotFoundError, match=r"absent: no such folder"):
        ingest_file(pool, pool.files[0], Layout(tmp_path / "results"))
    assert not (tmp_path / "results").exists()

"""Storages: the same pairs from tars, Parquet and zips as from single files, and nothing of archives that lie."""

import io
import json
import os
import struct
import tarfile
import zipfile
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pairs import pair, write_image, write_jsonl
from pydantic import ValidationError
from storing import Stored, add, write_parquet, write_tars, write_zip

from bettersynth.configuration.pool import USUAL, Pool
from bettersynth.configuration.storage import ArchiveError, MemberError, expand, storage_of
from bettersynth.core.layout import Layout
from bettersynth.core.publish import sha256_file
from bettersynth.core.records import read_records, text_of
from bettersynth.pool.images import ImageRoots, open_image, open_pixels
from bettersynth.pool.ingest import ingest_file
from bettersynth.workflow import archives
from bettersynth.workflow.archives import archive, read_member
from bettersynth.workflow.digests import shard_digests
from bettersynth.workflow.pictures import look
from bettersynth.workflow.roots import PoolFilesError, Roots, containers

COLOURS = ["red", "green", "blue", "teal", "orange", "grey", "pink"]


@pytest.fixture(autouse=True)
def own_memory(tmp_path, monkeypatch):
    """Indexes are remembered apart from this account's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> list[Stored]:
    """Seven pairs, JPEGs and PNGs mixed."""
    folder = tmp_path_factory.mktemp("files") / "images"
    paths = [folder / f"{number:04d}.{'png' if number % 3 == 2 else 'jpg'}" for number in range(len(COLOURS))]
    return [
        Stored(path.stem, f"a {colour} square", write_image(path, (40 + 8 * number, 24), colour))
        for number, (path, colour) in enumerate(zip(paths, COLOURS, strict=True))
    ]


def take_in(folder: Path, entry: dict, images=None, shards=2, **pool):
    """Take a file of the pool in; returns ledger, records by id, quarantine and the images' roots."""
    settings = Pool.model_validate({"files": [{"name": "raw", "shards": shards, **entry}], "images": images, **pool})
    layout = Layout(folder / "results")
    ledger = ingest_file(settings, settings.files[0], layout)
    paths = [layout.records("pool", f"raw-{number:04d}") for number in range(shards)]
    records = {record.id: record for path in paths for record in read_records(path)}
    quarantine = [json.loads(line) for line in layout.quarantine("raw").read_text(encoding="utf-8").splitlines()]
    assert ledger["lines"] == ledger["rows"] + sum(ledger["quarantined"].values()) == len(records) + len(quarantine)
    return ledger, records, quarantine, ImageRoots(settings, layout)


def in_storage(kind: str, folder: Path, stored: list[Stored]):
    """Entry and images of a pool over the pairs in a storage."""
    match kind:
        case "files":
            records = [pair(one.id, one.caption, f"images/{one.image.name}") for one in stored]
            return {"path": str(write_jsonl(folder / "raw.jsonl", records))}, str(stored[0].image.parents[1])
        case "tars":
            return {"path": write_tars(folder / "tars", stored, 2)}, None
        case "parquet":
            return {"path": write_parquet(folder / "data" / "train.parquet", stored)}, None
        case "zip" | "deflated":
            method = zipfile.ZIP_STORED if kind == "zip" else zipfile.ZIP_DEFLATED
            path, images = write_zip(folder / kind, stored, method)
            return {"path": path}, images
    records, tar = folder / "raw.jsonl", folder / "pictures.tar"
    write_jsonl(records, [pair(one.id, one.caption, one.image.name) for one in stored])
    with tarfile.open(tar, "w") as opened:
        for one in stored:
            opened.add(one.image, f"./{one.image.name}")
    return {"path": str(records)}, [str(folder), str(tar)]


@pytest.mark.parametrize("kind", ["tars", "parquet", "zip", "deflated", "tar"])
def test_every_storage_gives_the_records_and_pictures_of_single_files(kind, tmp_path, stored):
    _, plain, _, files = take_in(tmp_path / "files", *in_storage("files", tmp_path, stored))
    ledger, records, quarantine, roots = take_in(tmp_path, *in_storage(kind, tmp_path, stored))
    assert not quarantine and ledger["rows"] == len(stored)
    for record_id, record in plain.items():
        other = records[record_id]
        assert (other.text, other.image_sha256) == (record.text, record.image_sha256)
        here, there = roots.path("pool", other.images[0]), files.path("pool", record.images[0])
        assert np.array_equal(open_pixels(here, USUAL), open_pixels(there, USUAL))
        assert open_image(here, USUAL).tobytes() == files.open("pool", record.images[0]).tobytes()
        assert roots.is_as_read("pool", other.images[0])
    assert all(sha == sha256_file(path) for path, sha in ledger["inputs"].items())
    written = [path.suffix for path in tmp_path.rglob("*") if path.is_file()]
    assert not {".jpg", ".png"} & set(written), "nothing is unpacked"


def test_ids_and_captions_come_from_where_the_configuration_says(tmp_path, stored):
    path = write_tars(tmp_path / "tars", stored)
    _, records, _, _ = take_in(tmp_path, {"path": path, "caption": "json.caption", "id": "json.uid", "image": "jpg"})
    assert set(records) == {one.id for one in stored if one.image.suffix == ".jpg"}
    assert records["0001"].text == text_of("a green square")
    _, hashed, _, _ = take_in(tmp_path, {"path": path, "id": "hash"})
    _, again, _, _ = take_in(tmp_path, {"path": path, "id": "hash"}, shards=3)
    assert set(hashed) == set(again) and all(name.startswith("sha256-") for name in hashed)
    _, without, quarantine, _ = take_in(tmp_path, {"path": path, "caption": "json.title"})
    assert not without and "00000.tar: 0000: its .json has no title" in quarantine[0]["detail"]


def test_a_sample_of_several_pictures_is_one_record(tmp_path, stored):
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "a.tar", "w") as tar:
        for number, one in enumerate(stored[:2]):
            add(tar, f"x/both.{number}.{one.image.suffix[1:]}", one.image.read_bytes())
        add(tar, "x/both.seg.png", b"a mask is no picture of the sample")
        add(tar, "x/both.txt", b"two squares")
        add(tar, "README", b"of no sample")
    _, records, _, _ = take_in(tmp_path, {"path": str(tmp_path / "tars" / "*.tar")})
    (record,) = records.values()
    assert record.id == "x/both" and record.text.count("<__dj__image>") == 2
    assert record.images == ["tars/a.tar/x/both.0.jpg", "tars/a.tar/x/both.1.jpg"]


def test_what_a_sample_lacks_is_quarantined_with_its_archive_and_key(tmp_path, stored):
    (tmp_path / "tars").mkdir()
    picture = stored[0].image.read_bytes()
    with tarfile.open(tmp_path / "tars" / "a.tar", "w") as tar:
        add(tar, "no caption.jpg", picture)
        add(tar, "no picture.txt", b"words")
        add(tar, "latin.jpg", picture)
        add(tar, "latin.txt", "café".encode("latin-1"))
        add(tar, "cut.png", stored[2].image.read_bytes()[:-30])
        add(tar, "cut.txt", b"words")
    _, records, quarantine, _ = take_in(tmp_path, {"path": str(tmp_path / "tars" / "a.tar")})
    assert not records
    assert [(entry["reason"], entry["line"]) for entry in quarantine] == [
        ("no text", 1),
        ("no image list", 2),
        ("encoding", 3),
        ("image unreadable", 4),
    ]
    assert all(f"{tmp_path}/tars/a.tar" in entry["detail"] for entry in quarantine), quarantine


# --- archives of someone who means harm ----------------------------------------------------------


def hostile_members(picture: bytes):
    """Name → what adds a sample to a tar that is not to be read, and what is said of it."""

    def link(kind, target):
        def add_link(tar, name):
            member = tarfile.TarInfo(f"{name}.jpg")
            member.type, member.linkname = kind, target
            tar.addfile(member)

        return add_link

    def named(prefix):
        return lambda tar, name: add(tar, f"{prefix}{name}.jpg", picture)

    def sparse(tar, name):
        with_map = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 50)}
        member = tarfile.TarInfo(f"{name}.jpg")
        member.pax_headers, member.size = with_map | {"GNU.sparse.name": member.name}, 512
        tar.addfile(member, io.BytesIO(b"0\n".ljust(512, b"\0")))

    def twice(tar, name):
        add(tar, f"{name}.jpg", picture)
        add(tar, f"{name}.jpg", picture[::-1])

    return {
        "symlink": (link(tarfile.SYMTYPE, "/etc/hostname"), "is a link to /etc/hostname"),
        "hardlink": (link(tarfile.LNKTYPE, "../../secret.jpg"), "is a link to ../../secret.jpg"),
        "device": (link(tarfile.CHRTYPE, ""), "is a device or a pipe"),
        "pipe": (link(tarfile.FIFOTYPE, ""), "is a device or a pipe"),
        "above": (named("../../"), "leaves the archive by `..`"),
        "absolute": (named("/tmp/"), "has an absolute name"),
        "sparse": (sparse, "is a sparse file"),
        "twice": (twice, "is in it twice"),
    }


def test_hostile_members_are_refused_by_name_and_the_others_stay(tmp_path, stored):
    (tmp_path / "tars").mkdir()
    path = tmp_path / "tars" / "a.tar"
    cases = hostile_members(stored[0].image.read_bytes())
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "before.jpg", stored[0].image.read_bytes())
        add(tar, "before.txt", b"words")
        for name, (add_to, _) in cases.items():
            add_to(tar, name)
        add(tar, "é" * 120 + ".jpg", stored[1].image.read_bytes())
        add(tar, "é" * 120 + ".txt", b"a long name")
    _, records, quarantine, _ = take_in(tmp_path, {"path": str(path)})
    assert set(records) == {"before", "é" * 120}
    assert {entry["reason"] for entry in quarantine} == {"archive member"}
    for name, (_, said) in cases.items():
        (detail,) = [entry["detail"] for entry in quarantine if f"{name}.jpg" in entry["detail"]]
        assert said in detail and str(path) in detail


def broken_tars(folder: Path, stored: list[Stored]) -> dict[str, str]:
    """Tars that cannot be read as a whole, and what is said of them."""
    write_tars(folder, stored)
    whole = (folder / "00000.tar").read_bytes()
    picture = 512 + -(-len(stored[0].image.read_bytes()) // 512) * 512

    def with_size(text: bytes) -> bytes:
        header = bytearray(whole[:512])
        header[124:136] = text
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        return bytes(header) + whole[512:]

    def extended(size: int) -> bytes:
        header = tarfile.TarInfo("pax")
        header.type, header.size = tarfile.XHDTYPE, size
        return header.tobuf(tarfile.USTAR_FORMAT)

    contents = {
        "cut in a picture": (whole[:600], "is to have .* bytes, and the file ends before"),
        "cut between members": (whole[:picture], "it has no end mark"),
        "cut in a header": (whole[: picture + 100], "it has no end mark"),
        "damaged header": (
            whole[:picture] + b"?" * 512 + whole[picture + 512 :],
            "the header after 0000.jpg is damaged",
        ),
        "lying size": (with_size(b"77777777777\0"), "is to have 8,589,934,591 bytes"),
        "negative size": (with_size(b"\xff" * 12), "is to have -1 bytes|is damaged"),
        "huge extended header": (extended(1 << 32) + whole, "the extended header after its beginning has"),
        "one after another": (whole + whole, "more after its end mark"),
        "headers of headers": (extended(0) * 5000 + whole, "is damaged"),
        "empty": (b"", "it has no end mark"),
    }
    for name, (content, _) in contents.items():
        (folder / f"{name}.tar").write_bytes(content)
    return {name: said for name, (_, said) in contents.items()}


def test_a_tar_that_breaks_off_or_lies_ends_ingest_with_its_name(tmp_path, stored):
    for name, said in broken_tars(tmp_path / "tars", stored).items():
        with pytest.raises(ArchiveError, match=said) as caught:
            take_in(tmp_path, {"path": str(tmp_path / "tars" / f"{name}.tar")})
        assert f"{name}.tar: no whole tar archive at byte" in str(caught.value)


def zip_of(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_members_of_zips_that_lie_are_refused_by_name(tmp_path, stored):
    picture = stored[0].image.read_bytes()
    path = zip_of(tmp_path / "a.zip", one=picture, two=picture, three=picture)
    content = bytearray(path.read_bytes())
    central = content.index(b"PK\1\2")
    struct.pack_into("<I", content, central + 24, 10)  # `one` is to be ten bytes long, unpacked
    second = content.index(b"PK\1\2", central + 4)
    struct.pack_into("<H", content, second + 8, 1)  # `two` is to be encrypted
    third = content.index(b"PK\1\2", second + 4)
    struct.pack_into("<I", content, third + 42, 7)  # `three` is to lie elsewhere
    path.write_bytes(content)
    for name, said in (("one", "is damaged"), ("two", "is encrypted"), ("three", "nothing of it lies where")):
        with pytest.raises(MemberError, match=rf"a\.zip: its member {name} .*{said}"):
            read_member(path / name)
    with pytest.raises(FileNotFoundError, match=r"a\.zip: has no member four"):
        read_member(path / "four")
    struct.pack_into("<I", content, second + 20, 1 << 31)  # two that would overlap
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="they overlap"):
        archive(path)


def test_a_bomb_in_a_zip_is_refused_unpacked_no_further_than_it_says(tmp_path):
    path = zip_of(tmp_path / "a.zip", bomb=bytes(300_000_000))
    with pytest.raises(MemberError, match="bomb has 300,000,000 bytes"):
        read_member(path / "bomb")
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.index(b"PK\1\2") + 24, 1000)
    path.write_bytes(content)
    with pytest.raises(MemberError, match="is damaged"):
        read_member(path / "bomb")


def test_links_in_zips_and_names_that_leave_them_are_never_read(tmp_path):
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(link, "/etc/hostname")
        opened.writestr("../../out.jpg", b"x")
        opened.writestr("strong.jpg", b"x", zipfile.ZIP_LZMA)
    (tmp_path / "cut.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:-30])
    found = {member.name: member.problem for member in archive(tmp_path / "a.zip").members()}
    assert found["link.jpg"] == "is a link" and "leaves the archive" in found["../../out.jpg"]
    assert "is compressed by method 14" in found["strong.jpg"]
    lines = write_jsonl(tmp_path / "raw.jsonl", [pair(name, image=name) for name in found])
    _, records, quarantine, _ = take_in(tmp_path, {"path": str(lines)}, str(tmp_path / "a.zip"))
    assert not records
    assert sorted(entry["reason"] for entry in quarantine) == ["image member", "image member", "image path"]
    _, records, quarantine, _ = take_in(tmp_path, {"path": str(lines)}, str(tmp_path / "cut.zip"))
    assert not records and "cut.zip: no whole zip file" in quarantine[0]["detail"]


# --- Parquet's pages -----------------------------------------------------------------------------

WRITTEN = list(product(["none", "snappy", "zstd", "gzip"], ["1.0", "2.0"], [True, False]))


@pytest.mark.parametrize(("compression", "version", "dictionary"), WRITTEN)
def test_every_value_of_a_column_of_pictures_is_found(compression, version, dictionary, tmp_path):
    random = np.random.default_rng(0)
    values = [None if place % 7 == 3 else random.bytes(int(random.integers(0, 3000))) for place in range(300)]
    values += values[:40] * 3  # a dictionary is worth it
    lists = [
        [{"bytes": one, "path": None} for one in values[place : place + place % 4]] for place in range(len(values))
    ]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {
            "plain": pa.array(values, pa.binary()),
            "image": pa.array([None if one is None else {"bytes": one, "path": "x.jpg"} for one in values], image),
            "images": pa.array(lists, pa.list_(image)),
            "caption": ["words"] * len(values),
        }
    )
    options = {"compression": compression, "data_page_version": version, "use_dictionary": dictionary}
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=130, data_page_size=9000, dictionary_pagesize_limit=20_000, **options)
    read = {}
    for place, value in enumerate(values):
        read |= {} if value is None else {f"plain/{place}": value, f"image/{place}": value}
        read |= {f"images/{place}/{n}": one["bytes"] for n, one in enumerate(lists[place]) if one["bytes"] is not None}
    opened = archive(path)
    assert {member.name for member in opened.members()} == set(read)
    for name, value in read.items():
        assert opened.read(opened.find(name)) == value, name


def test_a_damaged_page_is_an_error_not_other_bytes(tmp_path, stored):
    path = Path(write_parquet(tmp_path / "data" / "a.parquet", stored, compression="snappy"))
    content = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(0).column(1)
    for place in range(start.data_page_offset, start.data_page_offset + 40, 3):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            found = {one.name: archive(path).read(one) for one in archive(path).members()}
        except (ArchiveError, MemberError) as error:
            assert str(path) in str(error)
        else:
            assert len(found) <= len(stored)


def test_datasets_own_parquet_is_read_and_columns_are_found_by_name(tmp_path, stored):
    from datasets import Dataset, Features, Image, Value

    pictures = [{"bytes": one.image.read_bytes(), "path": None} for one in stored]
    rows = {"picture": pictures, "blip": [one.caption for one in stored]}
    own = Dataset.from_dict(rows, features=Features({"picture": Image(), "blip": Value("string")}))
    path = tmp_path / "data" / "a.parquet"
    path.parent.mkdir()
    own.to_parquet(path)
    with pytest.raises(
        ArchiveError, match=r"no column caption or text or conversations; say by `caption` in `pool.files"
    ):
        take_in(tmp_path, {"path": str(path)})
    _, records, quarantine, _ = take_in(tmp_path, {"path": str(path), "caption": "blip", "image": "picture"})
    assert not quarantine and {record.text for record in records.values()} == {text_of(one.caption) for one in stored}
    assert {record.image_sha256[0] for record in records.values()} == {sha256_file(one.image) for one in stored}


def test_parquet_with_paths_names_files_below_the_image_folder(tmp_path, stored):
    table = {"text": [text_of(one.caption) for one in stored], "images": [[one.image.name] for one in stored]}
    pq.write_table(pa.table(table | {"id": [one.id for one in stored]}), tmp_path / "a.parquet")
    _, records, _, _ = take_in(tmp_path, {"path": str(tmp_path / "a.parquet")}, str(stored[0].image.parent))
    assert records["0002"].images == ["0002.png"] and records["0002"].text == text_of("a blue square")


# --- digests and names ---------------------------------------------------------------------------


def test_a_changed_archive_is_noticed_and_a_touched_one_changes_nothing(tmp_path, stored):
    pattern = write_tars(tmp_path / "tars", stored, 2)
    entry = {"name": "raw", "path": pattern, "shards": 3}
    pool = Pool.model_validate({"files": [entry]})
    layout, (file,) = Layout(tmp_path / "results"), pool.files
    ingest_file(pool, file, layout)
    before, seen = shard_digests(pool, file, layout.digests), look("raw", pool, layout)
    assert not seen.shards
    for path in (tmp_path / "tars").iterdir():
        os.utime(path, (0, 0))
    assert (shard_digests(pool, file, layout.digests), look("raw", pool, layout)) == (before, seen)
    write_tars(tmp_path / "tars", [stored[0]._replace(image=stored[1].image), *stored[1:]], 2)
    assert shard_digests(pool, file, layout.digests).shards == before.shards, "the texts are the same"
    records = {r.id: n for n in range(3) for r in read_records(layout.records("pool", f"raw-{n:04d}"))}
    assert look("raw", pool, layout).shards == (f"raw-{records['0000']:04d}",)
    assert archive(tmp_path / "tars" / "00000.tar").find("0000.jpg") is not None


def test_an_index_is_made_once_and_again_when_its_archive_changes(tmp_path, stored, monkeypatch):
    write_tars(tmp_path / "tars", stored)
    path = tmp_path / "tars" / "00000.tar"
    made = []
    kind = type(storage_of(path))
    walk = kind.members
    monkeypatch.setattr(kind, "members", lambda *arguments: made.append(1) or walk(*arguments))
    first = read_member(path / "0000.jpg")
    archives._open.clear()
    assert read_member(path / "0000.jpg") == first and len(made) == 1, "another process has it from the file"
    write_tars(tmp_path / "tars", stored[1:])
    with pytest.raises(FileNotFoundError):
        read_member(path / "0000.jpg")
    assert len(made) == 2
    for memory in (tmp_path / "cache").rglob("*.arrow"):
        memory.write_bytes(b"damaged")
    archives._open.clear()
    assert read_member(path / "0001.jpg") == stored[1].image.read_bytes() and len(made) == 3


def test_archives_of_one_name_in_two_folders_are_told_apart_or_refused(tmp_path, stored):
    patterns = [write_tars(tmp_path / one / "shards", stored[:1]) for one in ("a", "b")]
    files = [{"name": name, "path": path} for name, path in zip("ab", patterns, strict=True)]
    with pytest.raises(PoolFilesError, match="would have the same names; name a folder that both lie below"):
        pool = Pool.model_validate({"files": files})
        list(containers(pool, pool.files[1]))
    pool = Pool.model_validate({"files": files, "images": str(tmp_path)})
    assert [one.name for one in containers(pool, pool.files[1])] == ["b/shards/00000.tar"]


def test_links_and_absolute_paths_lead_to_what_lies_below_one_of_the_roots(tmp_path):
    write_image(tmp_path / "store" / "one.png")
    write_image(tmp_path / "secret" / "one.png")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "store" / "one.png")
    (tmp_path / "images" / "folder").symlink_to(tmp_path / "store")
    (tmp_path / "images" / "out.png").symlink_to(tmp_path / "secret" / "one.png")
    good = ["link.png", "folder/one.png", "one.png", str(tmp_path / "store" / "one.png"), "../store/one.png"]
    bad = ["out.png", str(tmp_path / "secret" / "one.png"), "../secret/one.png", "\\one.png", "/etc/hostname"]
    lines = write_jsonl(tmp_path / "raw.jsonl", [pair(name, image=name) for name in [*good, *bad]])
    roots = [str(tmp_path / "images"), str(tmp_path / "store")]
    ledger, records, quarantine, found = take_in(tmp_path, {"path": str(lines)}, roots)
    assert set(records) == set(good) and ledger["quarantined"] == {"image path": len(bad)}
    assert "name that folder in `pool.images`" in quarantine[0]["detail"]
    assert all(found.open("pool", records[name].images[0]).size == (24, 16) for name in good)
    (alone,) = {root.key for root in [Roots(roots[:1])]}
    assert alone == roots[0], "as results of one folder have it"
    _, records, _, _ = take_in(tmp_path / "again", {"path": str(lines)}, roots[0])
    assert not records, "one folder alone: nothing leads out of it"


def test_a_picture_is_the_one_in_the_first_root_that_has_it(tmp_path, stored):
    for name, one in zip(("first", "second"), stored, strict=False):
        write_image(tmp_path / name / "same.jpg", colour=COLOURS[stored.index(one)])
    write_image(tmp_path / "second" / "other.jpg")
    lines = write_jsonl(tmp_path / "raw.jsonl", [pair(name, image=name) for name in ("same.jpg", "other.jpg")])
    _, records, _, _ = take_in(tmp_path, {"path": str(lines)}, [str(tmp_path / "first"), str(tmp_path / "second")])
    assert records["same.jpg"].image_sha256 == [sha256_file(tmp_path / "first" / "same.jpg")]
    assert records["other.jpg"].image_sha256 == [sha256_file(tmp_path / "second" / "other.jpg")]


def test_keys_and_files_that_mean_nothing_are_refused(tmp_path):
    def problem(**pool):
        with pytest.raises(ValidationError) as caught:
            Pool.model_validate(pool)
        return str(caught.value)

    lines = {"name": "raw", "path": "a.jsonl"}
    assert "caption: means nothing to a.jsonl, which is read as JSON lines" in problem(
        files=[{**lines, "caption": "txt"}], images="x"
    )
    assert "is a zip file of pictures; name the JSON beside it here, and it in `pool.images`" in problem(
        files=[{**lines, "path": "a.zip"}], images="x"
    )
    assert "images: name the folder (or the zip or tar file) with the pictures of a.jsonl" in problem(files=[lines])
    Pool.model_validate({"files": [{"name": "raw", "path": "tars/*.tar"}]})


def test_patterns_name_files_in_order(tmp_path):
    for name in ("b.tar", "a.tar", "c.txt", "odd{1}.tar"):
        (tmp_path / name).touch()
    assert [Path(path).name for path in expand(f"{tmp_path}/?.tar")] == ["a.tar", "b.tar"]
    assert expand("x/{00..02}/{a,b}.tar")[:3] == ["x/00/a.tar", "x/00/b.tar", "x/01/a.tar"]
    assert expand(f"{tmp_path}/odd{{1}}.tar") == [f"{tmp_path}/odd{{1}}.tar"], "a file of that very name"

"""Archives of files: split, damaged, broken off and opened elsewhere."""

from __future__ import annotations

import random
import shutil
import subprocess

import pytest

from bettersynth.deploy.archive import ArchiveError, differing, pack, part_path, read_manifest, unpack

CONTENTS = {
    "a/large.bin": bytes(range(256)) * 100,
    "a/empty": b"",
    "b/ü – name.txt": b"words",
    "run.sh": b"#!/bin/sh\n",
    **{f"images/{number:03d}.jpg": random.Random(number).randbytes(30_000) for number in range(20)},
}


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    for name, content in CONTENTS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "run.sh").chmod(0o755)
    return folder


@pytest.fixture
def target(tmp_path):
    return tmp_path / "over" / "bundle.tar.zst"


def make(source, target, part_bytes=None):
    return pack(target, {name: source / name for name in CONTENTS}, {"kind": "test"}, part_bytes)


def open_in(folder, target):
    folder.mkdir(exist_ok=True)
    manifest = read_manifest(target)
    missing, other = differing(manifest, folder)
    unpack(target, manifest, folder, {*missing, *other})


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("part_bytes", [None, 250_000, 20_000, 5])
def test_what_goes_in_comes_out(source, target, tmp_path, part_bytes):
    if part_bytes == 5:
        (source / "a" / "large.bin").write_bytes(b"thirteen long")
        for number in range(20):
            (source / f"images/{number:03d}.jpg").write_bytes(b"four")
    parts = make(source, target, part_bytes)
    assert (len(parts) == 1) == (part_bytes is None)
    open_in(tmp_path / "elsewhere", target)
    assert contents(tmp_path / "elsewhere") == contents(source)
    assert (tmp_path / "elsewhere" / "run.sh").stat().st_mode & 0o111
    assert len({path.stat().st_mtime_ns for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()}) == 1


def test_the_same_files_give_the_same_bytes(source, target, tmp_path):
    first = [path.read_bytes() for path in make(source, target, 250_000)]
    copy = shutil.copytree(source, tmp_path / "copy", copy_function=shutil.copyfile)
    (copy / "run.sh").chmod(0o755)
    assert [path.read_bytes() for path in make(copy, tmp_path / "again" / "bundle.tar.zst", 250_000)] == first


def test_packing_goes_on_with_the_parts_that_are_not_there(source, target):
    parts = make(source, target, 250_000)
    times = {path: path.stat().st_mtime_ns for path in parts}
    parts[0].unlink()
    parts[1].unlink()
    assert make(source, target, 250_000) == parts
    assert [path for path in parts if path.stat().st_mtime_ns == times[path]] == parts[2:]


def test_unpacking_goes_on_where_it_was(source, target, tmp_path):
    parts = make(source, target, 250_000)
    whole = parts[-1].read_bytes()
    parts[-1].write_bytes(whole[:-20])
    with pytest.raises(ArchiveError, match=rf"{parts[-1].name}: damaged on the way .*copy it here again"):
        open_in(tmp_path / "elsewhere", target)
    assert contents(tmp_path / "elsewhere")
    assert all(
        content == CONTENTS[name]
        for name, content in contents(tmp_path / "elsewhere").items()
        if not name.endswith(".partial")
    )
    parts[-1].write_bytes(whole)
    open_in(tmp_path / "elsewhere", target)
    assert contents(tmp_path / "elsewhere") == CONTENTS


def test_an_altered_byte_is_found(source, target, tmp_path):
    make(source, target)
    damaged = bytearray(target.read_bytes())
    damaged[-400] ^= 1
    target.write_bytes(damaged)
    with pytest.raises(ArchiveError, match="copy it here again"):
        open_in(tmp_path / "elsewhere", target)


def test_a_missing_part_is_named(source, target, tmp_path):
    parts = make(source, target, 250_000)
    parts[1].unlink()
    with pytest.raises(ArchiveError, match=r"parts are missing: bundle.001.tar.zst"):
        open_in(tmp_path / "elsewhere", target)


def test_a_part_of_another_bundle_is_refused(source, target, tmp_path):
    make(source, target, 250_000)
    (source / "run.sh").write_bytes(b"other")
    other = make(source, tmp_path / "other" / "bundle.tar.zst", 250_000)
    shutil.copyfile(other[1], part_path(target, 1))
    with pytest.raises(ArchiveError, match="part of another bundle"):
        read_manifest(target)


def test_nothing_leaves_the_folder(source, target, tmp_path):
    pack(target, {"../outside": source / "run.sh"}, {})
    with pytest.raises(ArchiveError, match="leads out of the folder"):
        read_manifest(target)


def test_tar_opens_it_too(source, target, tmp_path):
    make(source, target)
    (tmp_path / "plain").mkdir()
    subprocess.run(["tar", "-xf", target, "-C", tmp_path / "plain"], check=True)
    found = contents(tmp_path / "plain")
    assert found.pop("bundle.json")
    assert found == CONTENTS

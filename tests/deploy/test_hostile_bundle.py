"""Bundles from elsewhere write where results belong and nowhere else, whatever they say of themselves."""

from __future__ import annotations

import subprocess
import sys
from base64 import urlsafe_b64encode

import hostile
import pytest
import zstandard

from bettersynth.deploy.archive import ArchiveError
from bettersynth.deploy.relay import CODE, RelayError, receive

RESULT = "results/small/datasets/wordy/card.json"
MERGE = (sys.executable, "-m", "bettersynth", "unbundle", "--results", "--from")
UNBUNDLE = (sys.executable, "-m", "bettersynth", "unbundle", "--from")


def record(output: str) -> str:
    return f".snakemake/metadata/{urlsafe_b64encode(output.encode()).decode()}"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory; bundles lie beside it."""
    path = tmp_path / "here"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


ASTRAY = [
    "scripts/sitecustomize.py",
    "sitecustomize.py",
    "data/numpy.py",
    "torch/__init__.cpython-311-x86_64-linux-gnu.so",
    "evil-1.0.dist-info/entry_points.txt",
    ".git/hooks/post-checkout",
    ".venv/bin/python",
    ".snakemake/scripts/x.py",
    ".snakemake/metadata/@a/not base64",
    record("/etc/passwd"),
    record("config/miniature.yaml"),
    record("results/other/pool/index.json"),
    "profiles/default/config.yaml",
    "config/miniature.yaml",
    "GNUmakefile",
    "Makefile",
    "SCRIPTS/x",
    "results/other/pool/index.json",
    "results/small/driver.json",
    "results/small/configuration.json",
    "results/small/leases/pool/index.json",
    "results/small/received/work-1.json",
    "results/small/pool/digests.json",
    "results/small/runs/best/.hidden/x.json",
    "results/small/runs/best/seed-1/finetune/checkpoint/modeling_mgm.py",
    "logs/other/x.log",
    "logs/small/x.sh",
    "tests/conftest.py",
    "resources/x.pth.py",
]


@pytest.mark.parametrize("name", [*ASTRAY, "data/images/1.jpg"])
def test_results_come_home_to_their_folders_only(folder, name):
    archive = hostile.bundle(folder.parent / "x.tar.zst", {RESULT: b"{}", name: b"1"})
    with pytest.raises(RelayError, match="no place for results") as refused:
        receive(archive, "results", replace=True)
    assert name in str(refused.value) and not hostile.tree(folder)


def test_results_in_their_folders_are_taken(folder):
    files = {
        RESULT: b"{}",
        record(RESULT): b"{}",
        "logs/small/dataset/wordy.log": b"",
        "benchmarks/small/dataset/wordy.tsv": b"",
        "results/small/runs/best/seed-1/finetune/checkpoint/README.md": b"",
        "results/small/sources/redrawn/images/ab/abcd.jpg": b"\xff",
    }
    receive(hostile.bundle(folder.parent / "x.tar.zst", files), "results")
    found = hostile.tree(folder)
    assert files.items() <= found.items()
    assert [name for name in found if name not in files and not name.startswith("results/small/received/")] == []


@pytest.mark.parametrize(
    "name", [name for name in ASTRAY if name.split("/")[0] not in ("scripts", "profiles", "Makefile")]
)
def test_work_holds_nothing_that_runs_but_code_and_its_configuration(folder, name):
    files = {"own.yaml": b"{}", name: b"1"}
    archive = hostile.bundle(folder.parent / "x.tar.zst", files, kind="work", config_file="own.yaml")
    with pytest.raises(RelayError, match="no place for work"):
        receive(archive, "work", replace=True, takes=lambda names: True)
    assert not hostile.tree(folder)


def test_code_and_configuration_are_shown_and_asked_for(folder):
    files = {
        "config/own.yaml": b"{}",
        "scripts/sitecustomize.py": b"print('hello')",
        "rules/common.smk": (CODE / "rules" / "common.smk").read_bytes(),
        "data/images/1.jpg": b"\xff",
        "models/clip/config.json": b"{}",
    }
    archive = hostile.bundle(folder.parent / "x.tar.zst", files, kind="work", config_file="config/own.yaml")
    said = hostile.refused(folder, *UNBUNDLE, archive)
    assert "config/own.yaml" in said and "scripts/sitecustomize.py" in said and "YES=1" in said
    assert "common.smk" not in said, "the same as what runs now"
    subprocess.run([*UNBUNDLE, archive, "--yes"], check=True, capture_output=True)
    assert files.items() <= hostile.tree(folder).items()
    asked: list[str] = []
    receive(archive, "work", takes=asked.append)
    assert not asked, "all of it is here"


def test_a_bundle_is_remembered_under_no_name_of_its_choice(folder):
    files = {RESULT: b"{}"}
    head = hostile.signed(hostile.manifest(files), bundle="/../../zz")
    hostile.write_archive(folder.parent / "x.tar.zst", head, files.items())
    with pytest.raises(ArchiveError, match="no bundle"):
        receive(folder.parent / "x.tar.zst", "results")
    assert not hostile.tree(folder)
    assert not (folder.parent / "zz.json").exists()


LYING_HEADS = {
    "another digest": {"bundle": "0" * 64},
    "two million parts": {"parts": 2_000_000},
    "many parts": {"parts": 900},
    "parts of nothing": {"part_bytes": -1},
    "parts of a byte": {"part_bytes": 1},
    "size": {"files": {RESULT: {"size": -1, "sha256": "0" * 64, "executable": False}}},
    "text for a size": {"files": {RESULT: {"size": "2", "sha256": "0" * 64, "executable": False}}},
    "a list of files": {"files": [RESULT]},
    "facts": {"made_from": [1]},
    "a name that is none": {"files": {f"{RESULT}\n": {"size": 2, "sha256": "0" * 64, "executable": False}}},
    "another configuration": {"configuration": "../up"},
}


@pytest.mark.parametrize("lie", LYING_HEADS)
def test_what_a_bundle_says_of_itself_is_checked(folder, lie):
    files = {RESULT: b"[" + b"1" * 5_000 + b"]"}
    said = LYING_HEADS[lie]
    honest = hostile.manifest(files)
    inside = {key: value for key, value in said.items() if key not in ("bundle", "parts")}
    head = hostile.signed(honest | inside, **said)
    archive = hostile.write_archive(folder.parent / "x.tar.zst", head, files.items())
    with pytest.raises((ArchiveError, RelayError), match=r"x\.tar\.zst: ") as refused:
        receive(archive, "results")
    assert len(str(refused.value)) < 500 and not hostile.tree(folder)


def test_a_head_that_unpacks_into_hundreds_of_megabytes_is_not_read(folder):
    archive = hostile.write_archive(folder.parent / "x.tar.zst", b"[" + b"[]," * 30_000_000 + b"1]")
    assert archive.stat().st_size < 10_000
    assert "no bundle" in hostile.refused(folder, *MERGE, archive)
    nested = hostile.write_archive(folder.parent / "y.tar.zst", b"[" * 1_000_000)
    with pytest.raises(ArchiveError, match="no bundle"):
        receive(nested, "results")


def test_no_more_is_unpacked_than_was_listed(folder):
    listed = hostile.manifest({RESULT: b"{}"})
    archive = hostile.write_archive(folder.parent / "x.tar.zst", hostile.signed(listed), [(RESULT, bytes(3_000_000))])
    with pytest.raises(ArchiveError, match="damaged on the way"):
        receive(archive, "results")
    assert not hostile.tree(folder)


def test_a_long_header_is_not_read_into_memory(folder):
    """A `x` header of the pax format, which tar reads whole, in front of a member."""
    listed = hostile.manifest({RESULT: b"{}"})
    archive = hostile.write_archive(folder.parent / "x.tar.zst", hostile.signed(listed), [("x" * 9, bytes(60_000_000))])
    data = bytearray(zstandard.ZstdDecompressor().stream_reader(archive.read_bytes()).read())
    start = data.index(b"x" * 9 + b"\0")
    data[start + 156 : start + 157] = b"x"  # the type of the member
    data[start + 148 : start + 156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    archive.write_bytes(zstandard.compress(bytes(data)))
    assert "holds more than it lists" in hostile.refused(folder, *MERGE, archive)


def test_a_file_with_other_bytes_than_listed_leaves_nothing(folder):
    listed = hostile.manifest({RESULT: b"{}"})
    hostile.write_archive(folder.parent / "x.tar.zst", hostile.signed(listed), [(RESULT, b"[]")])
    with pytest.raises(ArchiveError, match="damaged on the way"):
        receive(folder.parent / "x.tar.zst", "results")
    assert not hostile.tree(folder)


def test_a_link_in_an_archive_is_no_file(folder):
    listed = hostile.manifest({RESULT: b""})
    archive = hostile.write_archive(folder.parent / "x.tar.zst", hostile.signed(listed), [(RESULT, b"")])
    data = bytearray(zstandard.ZstdDecompressor().stream_reader(archive.read_bytes()).read())
    start = data.rindex(RESULT.encode())
    data[start + 156 : start + 157] = b"2"
    data[start + 157 : start + 168] = b"/etc/passwd"
    data[start + 148 : start + 156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    archive.write_bytes(zstandard.compress(bytes(data)))
    with pytest.raises(ArchiveError, match="damaged on the way"):
        receive(archive, "results")
    assert not hostile.tree(folder)


def test_a_command_to_type_is_quoted(folder):
    files = {"a b;id.yaml": b"{}"}
    archive = hostile.bundle(
        folder.parent / "x.tar.zst", files, kind="work", config_file="a b;id.yaml", targets=["results/x", "$(id)"]
    )
    done = subprocess.run([*UNBUNDLE, archive, "--yes"], check=True, capture_output=True, text=True)
    assert "CONFIG='a b;id.yaml'" in done.stdout and "'$(id)'" in done.stdout
    for facts in ({"recipe": "x; id"}, {"targets": ["--config"]}, {"elsewhere": ["\x1b[2J"]}):
        archive = hostile.bundle(folder.parent / "y.tar.zst", files, kind="work", config_file="a b;id.yaml", **facts)
        with pytest.raises(RelayError, match="is no name of"):
            receive(archive, "work", takes=lambda names: True)

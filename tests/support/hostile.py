"""Files from someone who means harm: archives that lie, and what a command may spend on them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import zstandard

from bettersynth.core.publish import sha256_bytes, sha256_json

SECONDS, MEGABYTES = 10, 500
"""What refusing something may take at most, of a processor and of memory."""


def tree(folder: Path) -> dict[str, bytes | str]:
    """All that lies below a folder."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    return {name: str(path.readlink()) if path.is_symlink() else path.read_bytes() for name, path in files.items()}


def refused(folder: Path, *command: object) -> str:
    """What a command says that refuses: in a few lines, soon, in little memory, and nothing in the folder changes."""
    before = tree(folder)
    limited = ["sh", "-c", f'ulimit -d {MEGABYTES * 1000}; ulimit -t {SECONDS}; exec "$@"', "sh", *map(str, command)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # each of its threads has memory of its own
    done = subprocess.run(
        limited,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = done.stdout
    assert done.returncode == 1, said
    assert "Traceback" not in said and len(said.splitlines()) <= 4 and len(said) < 1500, said
    assert tree(folder) == before
    return said


def manifest(files: Mapping[str, bytes], **facts: Any) -> dict[str, Any]:
    """A list as `make bundle` writes it, of results unless `facts` say otherwise."""
    entries = {
        name: {"size": len(content), "sha256": sha256_bytes(content), "executable": False}
        for name, content in files.items()
    }
    return {"kind": "results", "configuration": "small", "part_bytes": None, "files": entries, **facts}


def signed(manifest: Mapping[str, Any], **facts: Any) -> bytes:
    """The first member of an archive with this list."""
    head = {"bundle": sha256_json(manifest), "part": 0, "parts": 1, **manifest, **facts}
    return json.dumps(head, sort_keys=True).encode()


def write_archive(path: Path, head: bytes, members: Iterable[tuple[str, bytes]] = ()) -> Path:
    """An archive with any head and any members."""
    with (
        path.open("wb") as file,
        zstandard.ZstdCompressor(level=3).stream_writer(file) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, content in [("bundle.json", head), *members]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def bundle(path: Path, files: Mapping[str, bytes], **facts: Any) -> Path:
    """A bundle that is in order but for the names of its files."""
    return write_archive(path, signed(manifest(files, **facts)), sorted(files.items()))

"""The same pairs in every storage: as WebDataset's tars, as Parquet, and as JSON beside a zip or a tar."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pairs import llava_pair


class Stored(NamedTuple):
    """A pair to be put into a storage."""

    id: str
    caption: str
    image: Path


def add(tar: tarfile.TarFile, name: str, content: bytes, **header: Any) -> None:
    """Add a member of these bytes; other parts of its header as given."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in header.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(content))


def write_tars(folder: Path, pairs: Sequence[Stored], tars: int = 1) -> str:
    """WebDataset's tars `00000.tar` and on, with `.txt` and `.json`; returns their pattern."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(tars):
        with tarfile.open(folder / f"{number:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for pair in pairs[number::tars]:
                add(tar, f"{pair.id}{pair.image.suffix}", pair.image.read_bytes())
                add(tar, f"{pair.id}.json", json.dumps({"uid": pair.id, "caption": pair.caption}).encode())
                add(tar, f"{pair.id}.txt", pair.caption.encode())
    return str(folder / f"{{00000..{tars - 1:05d}}}.tar")


def write_parquet(path: Path, pairs: Iterable[Stored], **options: Any) -> str:
    """One table with a column of images as `datasets` writes it; `options` are Arrow's."""
    rows = [
        {
            "id": pair.id,
            "image": {"bytes": pair.image.read_bytes(), "path": pair.image.name},
            "caption": pair.caption,
        }
        for pair in pairs
    ]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("id", pa.string()), ("image", image), ("caption", pa.string())])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path, **options)
    return str(path)


def write_zip(folder: Path, pairs: Sequence[Stored], compression: int = zipfile.ZIP_STORED) -> tuple[str, str]:
    """A LLaVA list beside `images.zip`; returns both."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "images.zip", "w", compression) as archive:
        for pair in pairs:
            archive.write(pair.image, f"images/{pair.image.name}")
    entries = [llava_pair(pair.id, pair.caption, f"images/{pair.image.name}") for pair in pairs]
    (folder / "pairs.json").write_text(json.dumps(entries))
    return str(folder / "pairs.json"), str(folder / "images.zip")

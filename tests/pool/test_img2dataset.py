"""What img2dataset itself wrote is read as it lies: tars, with statistics and metadata beside them, and Parquet."""

from __future__ import annotations

from pathlib import Path

import pytest

from bettersynth.configuration.pool import USUAL, Pool
from bettersynth.core.layout import Layout
from bettersynth.core.records import caption_of, read_records
from bettersynth.inspect.holdings import look_into
from bettersynth.pool.images import ImageRoots, open_image
from bettersynth.pool.ingest import ingest_file

WRITTEN = Path(__file__).parent / "img2dataset"
DISCS = {"red": 48, "green": 56, "blue": 64, "teal": 72, "orange": 80, "purple": 88}
"""Colour and width of each."""


@pytest.mark.parametrize(("pattern", "refused"), [("webdataset/*.tar", 0), ("parquet/*.parquet", 1)])
def test_its_output_is_read_with_every_picture(pattern, refused, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pool = Pool.model_validate({"files": [{"name": "raw", "path": str(WRITTEN / pattern)}]})
    layout = Layout(tmp_path / "results")
    ledger = ingest_file(pool, pool.files[0], layout)
    records = list(read_records(layout.records("pool", "raw-0000")))
    assert (ledger["rows"], sum(ledger["quarantined"].values())) == (6, refused)
    assert {caption_of(record.text) for record in records} == {f"a {colour} disc" for colour in DISCS}
    roots = ImageRoots(pool, layout)
    for record in records:
        [image] = record.images
        colour = caption_of(record.text).split()[1]
        assert open_image(roots.path(record.image_root, image), USUAL).size == (DISCS[colour], 40)
    found = look_into(str(WRITTEN / pattern.partition("/")[0]), {}, [])
    assert found.pattern == str(WRITTEN / pattern) and found.records == 6 + refused, "`make new` takes it for that, too"

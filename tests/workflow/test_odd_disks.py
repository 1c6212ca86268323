"""A run on a disk that has no hard links and counts times in seconds, while /tmp is full."""

from __future__ import annotations

import pytest
from light import light_run
from odd_disks import EXFAT, cannot_mount, exfat, small_disk


@pytest.mark.workflow
@pytest.mark.skipif(bool(why := cannot_mount(*EXFAT)), reason=f"no exFAT disk can be mounted here: {why}")
def test_a_run_on_exfat_with_tmp_full(tmp_path, monkeypatch):
    with exfat(tmp_path) as disk, small_disk(tmp_path / "tmp", 64) as full:
        run = light_run(disk)
        (full / "filler").write_bytes(bytes(64 << 10))
        with pytest.raises(OSError), (full / "more").open("wb") as file:
            file.write(b"x")
        monkeypatch.setenv("TMPDIR", str(full))
        run.snakemake("datasets")
        assert (run.results / "datasets" / "twice" / "card.json").exists()
        assert not (run.results / "driver.json").exists() and not list((run.results / "leases").rglob("*.json"))
        assert not list(disk.rglob("*.1.log")), "the logs of jobs that ended well have no second name"
        assert run.would_run("datasets") == {}

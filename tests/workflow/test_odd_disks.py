"""A run on a disk that has no hard links and counts times in seconds, while /tmp is full."""

from __future__ import annotations

import copy

import pytest
from odd_disks import EXFAT, cannot_mount, exfat, small_disk
from workflow import CONFIGURATION, Run

from miniature.render import render_world

LIGHT = ("pool", "operators", "datasets", "trainset")
"""Sections of a configuration that loads no model."""


def light_configuration() -> dict[str, object]:
    """Two datasets that need words alone."""
    configuration = {name: copy.deepcopy(CONFIGURATION[name]) for name in LIGHT}
    configuration["operators"] = {"words_num": {"op": "words_num_filter"}}
    configuration["datasets"] = {
        "wordy": {"from": "pool", "filter": {"words_num": {"min": 6}}},
        "twice": {"from": "wordy", "repeat": 2},
    }
    return configuration


@pytest.mark.workflow
@pytest.mark.skipif(bool(why := cannot_mount(*EXFAT)), reason=f"no exFAT disk can be mounted here: {why}")
def test_a_run_on_exfat_with_tmp_full(tmp_path, monkeypatch):
    with exfat(tmp_path) as disk, small_disk(tmp_path / "tmp", 64) as full:
        render_world(disk / "data", records=12, second_records=4, textvqa=2, mmbench=2, instructions=2, faults=False)
        (full / "filler").write_bytes(bytes(64 << 10))
        with pytest.raises(OSError), (full / "more").open("wb") as file:
            file.write(b"x")
        monkeypatch.setenv("TMPDIR", str(full))
        run = Run(disk, light_configuration())
        run.snakemake("datasets")
        assert (run.results / "datasets" / "twice" / "card.json").exists()
        assert not (run.results / "driver.json").exists() and not list((run.results / "leases").rglob("*.json"))
        assert not list(disk.rglob("*.1.log")), "the logs of jobs that ended well have no second name"
        assert run.would_run("datasets") == {}

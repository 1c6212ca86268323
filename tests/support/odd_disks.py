"""Disks of other kinds, made of a file each and mounted where this machine allows it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXFAT = ("mkfs.exfat", "mount.exfat-fuse", "losetup", "umount")


def cannot_mount(*tools: str) -> str:
    """Why no disk can be mounted here; empty when one can."""
    lacking = [tool for tool in tools if shutil.which(tool) is None]
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    return "" if os.geteuid() == 0 else "only root mounts disks"


@contextmanager
def exfat(folder: Path, megabytes: int = 64) -> Iterator[Path]:
    """A folder on an exFAT disk, without hard links, symbolic links and modes, and with times in whole seconds."""
    image, place = folder / "exfat.img", folder / "exfat"
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    place.mkdir()
    _called("mkfs.exfat", image)
    device = _called("losetup", "--find", "--show", image).strip()
    try:
        _called("mount.exfat-fuse", device, place)
        try:
            yield place
        finally:
            _called("umount", "--lazy", place)
    finally:
        _called("losetup", "--detach", device)


@contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[Path]:
    """A folder on a tmpfs of that size."""
    place.mkdir(parents=True, exist_ok=True)
    _called("mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", place)
    try:
        yield place
    finally:
        _called("umount", "--lazy", place)


def _called(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout

"""Where an image lies: paths that stay in the image folder, and what is said of an image that cannot be used."""

from __future__ import annotations

import os
import re
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//|\\\\|.*::")  # a scheme or drive, a network path, fsspec's chain


class ImageReason(StrEnum):
    """Why an image cannot be used."""

    PATH = "image path"
    MISSING = "image missing"
    HEADER = "image header"
    FORMAT = "image format"
    TOO_LARGE = "image too large"
    UNREADABLE = "image unreadable"
    REFUSED = "image refused"
    """It is sound, but a model's own processing raises for it."""
    MEMBER = "image member"
    """It lies in an archive in a way that is not read: as a link, sparse, encrypted, damaged."""
    CHANGED = "image changed"
    """It is another picture than the one that was read into the pool."""


class ImageProblem(Exception):  # noqa: N818 - a finding about the data, not a failure of the program
    """An image that cannot be used: `reason` is short and fixed, `detail` names the file and what is wrong."""

    def __init__(self, reason: ImageReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def resolve(root: str | Path, relative: str) -> Path:
    """The file below `root` that `relative` names; whether it exists is not asked.

    Raises ImageProblem (`image path`) for a URL, an absolute path, and a path that leaves `root` through `..` or
    through a symbolic link. `root` itself may be a link.
    """
    checked_name(relative)
    if relative.startswith(("/", "\\")):
        raise ImageProblem(ImageReason.PATH, f"{relative!r} is absolute; give it relative to the image folder")
    if ".." in re.split(r"[/\\]", relative):
        raise ImageProblem(ImageReason.PATH, f"{relative!r} has a `..` in it")
    real_root = _resolved(os.path.join(os.getcwd(), root))  # noqa: PTH109, PTH118 - links before `..`
    real = real_path(f"{real_root}/{relative}")
    if not real.is_relative_to(real_root):
        raise ImageProblem(ImageReason.PATH, f"{relative!r} leaves the image folder through a symbolic link to {real}")
    return real


def checked_name(name: str) -> None:
    """Raise ImageProblem (`image path`) for what names no file: a URL, nothing."""
    if not name or "\0" in name:
        raise ImageProblem(ImageReason.PATH, f"{name!r} is no path")
    if _URL.match(name):
        raise ImageProblem(ImageReason.PATH, f"{name!r} is a URL; only files below the image folder are opened")


def real_path(path: str) -> Path:
    """The path behind all links, as far as there is something."""
    return Path(os.path.realpath(path))


@lru_cache(maxsize=64)
def _resolved(root: str) -> Path:
    """Asked for every image, and the same for all of a pool."""
    return Path(root).resolve()

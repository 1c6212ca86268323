"""Where the pool's pictures are looked for: the folders and archives that `pool.images` names, in their order."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from bettersynth.configuration.pool import Pool, PoolFile
from bettersynth.configuration.storage import Container, expand, folder_of, storage_of
from bettersynth.core.errors import PersonError
from bettersynth.core.image_paths import ImageProblem, ImageReason, checked_name, real_path
from bettersynth.workflow.archives import is_there


class PoolFilesError(PersonError, ValueError):
    """Files of the pool that cannot be told apart, or are not there."""


class Roots:
    """Folders and archives; a picture's name is relative to the first in which it is found."""

    def __init__(self, places: Sequence[str]) -> None:
        self.places = list(places)
        self._real = [Path(os.getcwd(), place).resolve() for place in places]  # noqa: PTH109

    @property
    def key(self) -> str:
        """All of them as one text."""
        return self.places[0] if len(self.places) == 1 else json.dumps(self.places)

    def at(self, name: str) -> str:
        """The path of a picture, nothing of it checked."""
        if name.startswith("/") or len(self.places) == 1:
            return name if name.startswith("/") else f"{self.places[0]}/{name}"
        paths = (f"{place}/{name}" for place in self.places)
        return next(filter(is_there, paths), f"{self.places[0]}/{name}")

    def resolve(self, name: str) -> Path:
        """The picture's file; whether it exists is not asked.

        Raises ImageProblem (`image path`) for a URL, and for what lies, behind all links and `..`, below none of the
        folders.
        """
        checked_name(name)
        real = real_path(self.at(name))
        if name.startswith("\\") or not any(real.is_relative_to(root) for root in self._real):
            raise ImageProblem(
                ImageReason.PATH,
                f"{name!r} leads to {real}, below none of {', '.join(self.places)}; name that folder in `pool.images`",
            )
        return real


def roots_of(pool: Pool) -> Roots:
    """Those of `pool.images`, and where files lie that hold their pictures themselves, unless that is below one."""
    places = [pool.images] if isinstance(pool.images, str) else list(pool.images or ())
    for file in pool.files:
        folder = folder_of(file.path)
        if storage_of(file.path).holds_pictures and all(_below(folder, place) is None for place in places):
            places.append(_above(folder))
    return Roots(places)


def containers(pool: Pool, file: PoolFile) -> Iterator[Container]:
    """The files of an entry of `pool.files`, and what their pictures' names begin with.

    Raises PoolFilesError when the pictures of two would have one name.
    """
    roots = roots_of(pool)
    for path in expand(file.path):
        name = next((name for place in roots.places if (name := _below(path, place)) is not None), "")
        if storage_of(path).holds_pictures and os.path.exists(path) and not os.path.samefile(roots.at(name), path):  # noqa: PTH110, PTH121
            raise PoolFilesError(
                f"pool.files.{file.name}: pictures of {path} and of {roots.at(name)} would have the same names; name "
                "a folder that both lie below in `pool.images`, before the others, or rename one's folder"
            )
        yield Container(Path(path), name)


def _below(path: str, folder: str) -> str | None:
    """The path relative to the folder, if it lies below it; links are not followed."""
    inside = os.path.relpath(path, folder)
    return None if inside.startswith("..") else inside.removeprefix("./")


def _above(folder: str) -> str:
    """The folder above, so that archives of one name in two folders are told apart; of the topmost, itself."""
    above = os.path.dirname(folder) or "."  # noqa: PTH120
    return folder if folder == "." or os.path.dirname(above) == above else above  # noqa: PTH120

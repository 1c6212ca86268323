"""Which pairs have a picture in the explorer's page, and their thumbnails."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bettersynth.core.image_paths import ImageProblem
from bettersynth.core.progress import progress
from bettersynth.core.publish import sha256_bytes
from bettersynth.datasets.columns import Column, row_means
from bettersynth.pool.images import ImageRoots

SIDE = 104
"""Longest side of a thumbnail, in pixels."""
QUALITY = 58
EXTREMES = 0.25
"""Of the pairs that are chosen by a score, the share at its two ends; as many lie at its bounds."""


def choose(columns: Sequence[Column], bounds: Sequence[Sequence[float]], ids: Sequence[str], most: int) -> list[int]:
    """Places of at most `most` rows, in order: of each score its ends, both sides of its bounds, and all in between.

    The last fifth is drawn by the hashes of the ids.
    """
    if len(ids) <= most:
        return list(range(len(ids)))
    chosen: dict[int, None] = {}
    each = max(4, int(0.8 * most) // max(len(columns), 1))
    for column, of_column in zip(columns, bounds, strict=True):
        chosen.update(dict.fromkeys(_by_score(row_means(column.values), of_column, each)))
    drawn = np.random.default_rng(int(sha256_bytes("\0".join(ids).encode())[:16], 16)).permutation(len(ids))
    rest = (int(place) for place in drawn if int(place) not in chosen)
    while len(chosen) < most:
        chosen[next(rest)] = None
    return sorted(list(chosen)[:most])


def _by_score(means: npt.NDArray[np.float64], bounds: Sequence[float], most: int) -> list[int]:
    known = np.flatnonzero(np.isfinite(means))
    order = known[np.argsort(means[known], kind="stable")]
    if not len(order):
        return []
    at_ends = max(1, int(EXTREMES * most) // 2)
    found = [*order[:at_ends], *order[-at_ends:]]
    at_bounds = max(1, int(EXTREMES * most) // (2 * max(len(bounds), 1)))
    for bound in bounds:
        place = int(np.searchsorted(means[order], bound))
        found += [*order[max(0, place - at_bounds) : place + at_bounds]]
    between = np.linspace(0, len(order) - 1, max(0, most - len(found))).astype(int)
    return list(map(int, [*found, *order[between]]))


class Album:
    """Thumbnails of the first images of records, each picture once."""

    def __init__(self, roots: ImageRoots) -> None:
        self._roots = roots
        self._places: dict[tuple[str, str], int] = {}
        self.thumbnails: list[bytes] = []
        self.problems: dict[int, str] = {}

    def places(self, records: pa.Table) -> list[int]:
        """The place of each record's thumbnail among `thumbnails`; that of one that cannot be shown is empty."""
        named = [
            (root, images[0] if images else "")
            for root, images in zip(records["image_root"].to_pylist(), records["images"].to_pylist(), strict=True)
        ]
        return [self._place(*one) for one in progress(named, len(named), "thumbnails", least=10)]

    def _place(self, root: str, image: str) -> int:
        place = self._places.setdefault((root, image), len(self.thumbnails))
        if place == len(self.thumbnails):
            self.thumbnails.append(self._thumbnail(root, image, place))
        return place

    def _thumbnail(self, root: str, image: str, place: int) -> bytes:
        try:
            return jpeg(self._roots, root, image, SIDE, "WEBP")
        except ImageProblem as problem:
            self.problems[place] = str(problem.reason)
            return b""


def jpeg(roots: ImageRoots, root: str, image: str, side: int, form: str = "JPEG") -> bytes:
    """A picture made anew, no side longer than `side` pixels; raises ImageProblem."""
    picture = roots.open(root, image)
    picture.thumbnail((side, side))
    data = io.BytesIO()
    picture.save(data, form, quality=QUALITY if form == "WEBP" else 85, method=4)
    return data.getvalue()

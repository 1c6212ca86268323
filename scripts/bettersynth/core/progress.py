"""A line now and then about how far a long job is: tqdm's counting, for a log instead of a terminal."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

LINE = "{desc}: {n_fmt} of {total_fmt} in {elapsed}, {rate_noinv_fmt}, {remaining} left"


class _Log(io.StringIO):
    """What tqdm takes for a terminal; every bar that it draws becomes a line of the log."""

    def write(self, text: str) -> int:
        if line := text.strip("\r\n "):
            logger.info("%s", line)
        return len(text)


def progress(
    items: Iterable[Item],
    total: int,
    what: str,
    size: Callable[[Item], int] = lambda item: 1,
    every: float = 15.0,
    least: float = 0.0,
) -> Iterator[Item]:
    """Yield the items and log, every so many seconds and at the end, how much is done, its rate and the time left.

    `size` says how much of the `total` an item is. What takes less than `least` seconds in all is not told of.
    """
    bar = tqdm(total=total, desc=what, unit="", file=_Log(), bar_format=LINE, mininterval=every, delay=max(least, 1e-9))
    with bar:
        for item in items:
            yield item
            bar.update(size(item))


def duration(seconds: float) -> str:
    """Seconds as `00:45`, `12:30` or `3:20:00`."""
    return str(tqdm.format_interval(seconds))

"""A line now and then about how far a long job is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


def progress(
    items: Iterable[Item], total: int, what: str, size: Callable[[Item], int] = lambda item: 1, every: float = 15.0
) -> Iterator[Item]:
    """Yield the items and log, every so many seconds and at the end, how much is done, its rate and the time left.

    `size` says how much of the `total` an item is.
    """
    started = reported = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += size(item)
        now = time.monotonic()
        if now - reported >= every and done < total:
            reported = now
            rate = done / (now - started)
            logger.info("%s: %d of %d, %.1f/s, %s left", what, done, total, rate, duration((total - done) / rate))
    if not done:
        return
    elapsed = time.monotonic() - started
    logger.info("%s: %d in %s, %.1f/s", what, done, duration(elapsed), done / max(elapsed, 1e-9))


def duration(seconds: float) -> str:
    """Seconds as `45 s`, `12 min` or `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"

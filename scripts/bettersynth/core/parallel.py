"""Work on many items in parts, or in threads; in order, with bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

SLICE = 10_000
"""Items handed out at one time: `map` makes all its tasks at once."""


def map_threads(function: Callable[[Item], Result], items: Sequence[Item], threads: int) -> Iterator[Result]:
    """The function's result for each item, in order. Worth it where Python's lock is free: files, decoders."""
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(items), SLICE):
            yield from pool.map(function, items[start : start + SLICE])


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """The items in parts of `size`, the last of what is left."""
    for start in range(0, len(items), size):
        yield items[start : start + size]

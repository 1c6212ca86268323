"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def aligned(head: Sequence[str], lines: Iterable[Sequence[str]], *, left: int = 2) -> Iterator[str]:
    """The lines of a table, its head first; the first `left` columns begin on one line, the others end on one.

    A line that is shorter than the head ends in text of any length.
    """
    table = [list(head), *map(list, lines)]
    whole = [line for line in table if len(line) == len(head)]
    widths = [max(len(line[place]) for line in whole) for place in range(len(head))]
    for line in table:
        short = len(line) < len(head)
        cells = [
            text if short and place == len(line) - 1 else text.ljust(width) if place < left else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=False))
        ]
        yield "  ".join(cells).rstrip()

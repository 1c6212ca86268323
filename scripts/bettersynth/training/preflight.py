"""What training will not be able to use, found before anything is spent on it: findings, on record and all at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import orjson

from bettersynth.core.publish import publish

SHOWN = 20
"""Findings that an error lists."""


class PreflightError(ValueError):
    """Rows that cannot be used; the message counts them by reason, shows some, and says what to do."""


class Finding(NamedTuple):
    """What is wrong with a row: its number (from 1) and id, the key in it, the file concerned, and why."""

    row: int
    id: str
    key: str
    file: str
    reason: str
    detail: str


class Unusable(NamedTuple):
    """What the configuration wants of unusable rows; `key` is where it says so."""

    policy: Literal["refuse", "drop"]
    largest_share: float
    key: str


def settle(
    what: str, findings: Sequence[Finding], rows: int, dropped: int, wanted: Unusable, record: Path, remedy: str
) -> dict[str, int]:
    """Put every finding on record (JSON lines); return counts by reason when the rows are to be dropped, or are none.

    `dropped` of the `rows` have findings. Raises PreflightError when they are not to be dropped, or are more than the
    largest share; `remedy` is how to mend them.
    """
    write_findings(record, findings)
    counts = dict(sorted(Counter(finding.reason for finding in findings).items()))
    share = dropped / max(rows, 1)
    if not findings or (wanted.policy == "drop" and share <= wanted.largest_share and dropped < rows):
        return counts
    lines = explain(what, findings, rows, record)
    if wanted.policy == "drop":
        lines.append(
            f"{dropped} of {rows} rows are {share:.1%}, more than {wanted.key}.unusable_share {wanted.largest_share:g} "
            "allows to be dropped."
        )
    lines.append(remedy if wanted.policy == "drop" else f"{remedy}; or train without them: {wanted.key}.unusable: drop")
    raise PreflightError("\n".join(lines))


def explain(what: str, findings: Sequence[Finding], rows: int, record: Path) -> list[str]:
    """Lines about the findings in `rows` rows: counts by reason, the first ones, and where all are."""
    counts, shown = Counter(finding.reason for finding in findings), findings[:SHOWN]
    return [
        f"{what}: {len(findings)} findings in {rows} rows",
        *(f"  {count} × {reason}" for reason, count in sorted(counts.items())),
        *(_writable(f"  {item.id}: {item.reason}: {item.detail} (`{item.key}` of row {item.row})") for item in shown),
        *([f"  … and {len(findings) - SHOWN} more"] if len(findings) > SHOWN else []),
        f"All are in {record}.",
    ]


def write_findings(path: Path, findings: Sequence[Finding]) -> None:
    """Publish the findings as JSON lines."""
    with publish(path) as temporary, temporary.open("wb") as output:
        for item in findings:
            words = {
                key: _writable(value) if isinstance(value, str) else value for key, value in item._asdict().items()
            }
            output.write(orjson.dumps(words, option=orjson.OPT_APPEND_NEWLINE))


def _writable(text: str) -> str:
    """The text, with half of a surrogate pair, which JSON can hold and no file can, as its escape."""
    return text.encode("utf-8", "backslashreplace").decode()

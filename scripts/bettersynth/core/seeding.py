"""Random numbers of a record: from the seed and the record's id, never from its position or the time."""

from __future__ import annotations

import hashlib


def record_seed(seed: int, record_id: str, draw: int = 0) -> int:
    """A 63-bit seed for one draw about one record; the same on every machine and in every batch."""
    digest = hashlib.sha256(f"{seed}\0{record_id}\0{draw}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1

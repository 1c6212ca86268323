"""Which shard a record belongs to: decided by its id alone, so that adding records moves no other."""

from __future__ import annotations

import hashlib

from bettersynth.core.names import ShardName


def shard_number(record_id: str, shards: int) -> int:
    """The number, in 0…shards-1, of the shard that holds the record; the same on every machine."""
    return int.from_bytes(hashlib.blake2b(record_id.encode(), digest_size=8).digest(), "big") % shards


def shard_name(prefix: str, record_id: str, shards: int) -> str:
    """The name of the record's shard, such as `stage_1-0007` (as `plan.shard_names` lists them)."""
    return str(ShardName(prefix, shard_number(record_id, shards)))

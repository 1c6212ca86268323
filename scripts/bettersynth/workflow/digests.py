"""Digests of raw files and of their shards, taken when the graph is built: they decide what is scored again.

A shard's digest changes when, and only when, a record in it changes, comes or goes; touching, copying, compressing
or reordering the file changes none.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import orjson

from bettersynth.configuration.pool import PoolFile
from bettersynth.core.digests import digest
from bettersynth.core.publish import read_json, where_allowed, write_json
from bettersynth.core.raw import RecordProblem, parse_record, raw_lines
from bettersynth.core.sharding import shard_name

FORM = 2
"""Counted up when the meaning of a digest changes, so that old caches are not believed."""


class FileDigest(NamedTuple):
    """`file` covers every uncompressed byte; `shards` covers id, text and images of each shard's records.

    `records` counts them, before any image was looked at.
    """

    file: str
    shards: dict[str, str]
    records: dict[str, int]


def shard_digests(file: PoolFile, cache: Path) -> FileDigest:
    """The digests of a raw file, from `cache` (a JSON file) when path and contents are as before.

    A file that is not on this machine has the digests that it had last: of a run that was carried here, only what the
    next jobs read came along.
    """
    key, known = _key(file), read_json(cache) if cache.is_file() else {}
    entry = known.get(key)
    if Path(file.path).is_file():
        state = [FORM, digest(file.path)]
        if entry is None or entry["state"] != state:
            entry = {"state": state, **take_digests(file)._asdict()}
            with where_allowed():
                write_json(cache, {**known, key: entry})
    elif entry is None:
        raise FileNotFoundError(
            f"{file.path}: no such file; put it there, or change `path` of `{file.name}` in `pool.files`"
        )
    return FileDigest(entry["file"], entry["shards"], entry["records"])


def is_remembered(file: PoolFile, cache: Path) -> bool:
    """Whether the digests of a raw file are known, be it here or not."""
    return cache.is_file() and read_json(cache).get(_key(file), {}).get("state", [None])[0] == FORM


def _key(file: PoolFile) -> str:
    return f"{file.path}|{file.name}|{file.shards}"


def take_digests(file: PoolFile) -> FileDigest:
    """The digests of a raw file, read once from start to end."""
    whole = hashlib.sha256()
    contents: dict[str, bytes] = {}
    for _, raw in raw_lines(file.path):
        whole.update(raw)
        whole.update(b"\n")
        try:
            record = parse_record(raw)
        except RecordProblem:
            continue  # counted and quarantined by ingest; belongs to no shard
        if record.id not in contents:  # as in ingest, the first of two equal ids wins
            content = orjson.dumps([record.id, record.text, record.images])
            contents[record.id] = hashlib.blake2b(content, digest_size=16).digest()
    shards = {f"{file.name}-{number:04d}": hashlib.sha256() for number in range(file.shards)}
    records = dict.fromkeys(shards, 0)
    for record_id in sorted(contents):
        shard = shard_name(file.name, record_id, file.shards)
        shards[shard].update(contents[record_id])
        records[shard] += 1
    return FileDigest(whole.hexdigest(), {name: digest.hexdigest() for name, digest in shards.items()}, records)

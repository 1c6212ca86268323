"""Digests of raw files and of their shards, taken when the graph is built: they decide what is scored again.

A shard's digest changes when, and only when, a record in it changes, comes or goes; touching, copying, compressing
or reordering the file changes none.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from bettersynth.configuration.pool import Pool, PoolFile
from bettersynth.configuration.storage import expand, storage_of
from bettersynth.core.digests import digests
from bettersynth.core.publish import read_json, where_allowed, write_json
from bettersynth.core.raw import RecordProblem
from bettersynth.core.sharding import shard_name
from bettersynth.workflow.archives import state_of
from bettersynth.workflow.roots import containers

FORM = 2
"""Counted up when the meaning of a digest changes, so that old caches are not believed."""


class FileDigest(NamedTuple):
    """`file` covers every uncompressed byte; `shards` covers id, text and images of each shard's records.

    `records` counts them, before any image was looked at.
    """

    file: str
    shards: dict[str, str]
    records: dict[str, int]


def shard_digests(pool: Pool, file: PoolFile, cache: Path) -> FileDigest:
    """The digests of a raw file, from `cache` (a JSON file) when path and contents are as before.

    A file that is not on this machine has the digests that it had last: of a run that was carried here, only what the
    next jobs read came along.
    """
    key, known = _key(file), read_json(cache) if cache.is_file() else {}
    entry = known.get(key)
    if is_here(file):
        state = [FORM, _mark(pool, file)]
        if entry is None or entry["state"] != state:
            entry = {"state": state, **take_digests(pool, file)._asdict()}
            with where_allowed():
                write_json(cache, {**known, key: entry})
    elif entry is None:
        raise FileNotFoundError(
            f"{file.path}: no such file; put it there, or change `path` of `{file.name}` in `pool.files`"
        )
    return FileDigest(entry["file"], entry["shards"], entry["records"])


def is_here(file: PoolFile) -> bool:
    """Whether the file of an entry of `pool.files` is on this machine, or all of those of its pattern are."""
    paths = expand(file.path)
    return bool(paths) and all(map(os.path.isfile, paths))


def _mark(pool: Pool, file: PoolFile) -> Any:
    """What changes whenever the records do that a file holds.

    Of a file with pictures, which is large and of which only the texts count here, what the file system says.
    """
    if storage_of(file.path).holds_pictures:
        return [[container.name, *state_of(container.path)] for container in containers(pool, file)]
    found = digests(container.path for container in containers(pool, file))
    return next(iter(found.values())) if len(found) == 1 else list(found.values())


def is_remembered_rightly(pool: Pool, file: PoolFile, cache: Path) -> bool:
    """Whether what is remembered of a raw file that is as it was then is what its records give; True of others."""
    entry = read_json(cache).get(_key(file))
    if entry is None or not is_here(file) or entry["state"] != [FORM, _mark(pool, file)]:
        return True
    found = take_digests(pool, file)._asdict()
    return bool({key: entry.get(key) for key in found} == found)


def is_remembered(file: PoolFile, cache: Path) -> bool:
    """Whether the digests of a raw file are known, be it here or not."""
    return cache.is_file() and read_json(cache).get(_key(file), {}).get("state", [None])[0] == FORM


def _key(file: PoolFile) -> str:
    return "|".join([file.path, file.name, str(file.shards), *(f"{key}={where}" for key, where in file.fields.items())])


def take_digests(pool: Pool, file: PoolFile) -> FileDigest:
    """The digests of a raw file, read once from start to end."""
    whole = hashlib.sha256()
    contents: dict[str, bytes] = {}
    for line in storage_of(file.path).lines(file, containers(pool, file)):
        whole.update(line.raw)
        whole.update(b"\n")
        try:
            record = line.record()
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

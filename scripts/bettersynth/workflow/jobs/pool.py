"""Raw files to sharded records, and the index of the whole pool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bettersynth.configuration.pool import PoolFile
from bettersynth.configuration.storage import expand
from bettersynth.core.names import ShardName
from bettersynth.core.publish import read_json
from bettersynth.core.records import POOL
from bettersynth.workflow.expected import Rows
from bettersynth.workflow.jobs.specification import Files, Fingerprinted, Kind, Read, Rule


class Ingest(Rule):
    """Read a raw file into sharded records; each file has a rule block of its own."""

    name = "ingest"
    wildcards = ("file",)
    block_each = True
    kind = Kind.CPU
    log_name = "ingest/{file}"
    says = "Read {path}"
    title = "{file}"
    group = "pool"
    phase = heading = "ingest"
    unit = "records"
    knows_reads = False
    """Images are named in the raw file, and nowhere before it is read."""

    def every(self) -> Iterator[tuple[str, ...]]:
        return ((file.name,) for file in self.configuration.pool.files)

    def inputs(self, file: str) -> dict[str, Files]:
        paths = [Fingerprinted(path) for path in expand(self._entry(file).path)]
        return {"raw": paths[0] if len(paths) == 1 else paths}

    def outputs(self, file: str) -> dict[str, Files]:
        shards = [shard for shard in self.plan.shards(POOL) if ShardName.parse(shard).prefix == file]
        return {
            "records": [self.layout.records(POOL, shard) for shard in shards],
            "order": self.layout.order(file),
            "images": self.layout.images(file),
            "quarantine": self.layout.quarantine(file),
            "ledger": self.layout.file_ledger(file),
        }

    def parameters(self, file: str) -> dict[str, Any]:
        """The file's name, and what decides which records it gives."""
        contents = {
            "digest": self.fingerprints.digest(file).file,
            "shards": self._entry(file).shards,
            **self.fingerprints.images(file),
            **self.fingerprints.checks,
        }
        return {"file": file, "contents": contents}

    def companions(self, output: Path, file: str) -> Iterator[Read]:
        """With the ledger, the records that it tells of."""
        if output == self.layout.file_ledger(file):
            yield from (self.layout.records(POOL, shard) for shard in read_json(output)["shards"])

    def amount(self, file: str) -> Rows:
        return self.expected.file(file)

    def work_kind(self, file: str) -> str:
        return "ingest"

    def what(self, file: str) -> str:
        return f"ingest: {file}"

    def _entry(self, file: str) -> PoolFile:
        return next(entry for entry in self.configuration.pool.files if entry.name == file)


class PoolIndex(Rule):
    """Order the pool."""

    name = log_name = "pool_index"
    says = "Order the pool"

    def inputs(self) -> dict[str, Files]:
        return {"orders": [self.layout.order(file.name) for file in self.configuration.pool.files]}

    def outputs(self) -> dict[str, Files]:
        return {"index": self.layout.index, "card": self.layout.index_card}

    def parameters(self) -> dict[str, Any]:
        return {"files": [file.name for file in self.configuration.pool.files]}

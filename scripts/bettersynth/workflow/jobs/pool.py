"""Raw files to sharded records, and the index of the whole pool."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bettersynth.configuration.pool import PoolFile
from bettersynth.core.names import ShardName
from bettersynth.core.records import POOL
from bettersynth.workflow.expected import Rows
from bettersynth.workflow.jobs.specification import Files, Fingerprinted, Kind, Rule


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

    def every(self) -> Iterator[tuple[str, ...]]:
        return ((file.name,) for file in self.configuration.pool.files)

    def inputs(self, file: str) -> dict[str, Files]:
        return {"raw": Fingerprinted(self._entry(file).path)}

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

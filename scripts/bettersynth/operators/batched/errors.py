"""What stops a pass."""

from __future__ import annotations

from typing import Any


class RecordError(RuntimeError):
    """A record that cannot be scored: the operators that tried, the record's id, its shard's key and why."""

    def __init__(self, operators: str, record: str, reason: str, shard: Any = None) -> None:
        super().__init__(operators, record, reason, shard)
        self.operators = operators
        self.record = record
        self.reason = reason
        self.shard = shard

    def __str__(self) -> str:
        return f"{self.operators} cannot score record {self.record}: {self.reason}"

"""Names that are made of parts: of a stat, and of a shard."""

from __future__ import annotations

from typing import NamedTuple


class StatKey(NamedTuple):
    """What a score is called, `<operator>.<stat>`; `stat` is empty for an operator's only one, where it is left out."""

    operator: str
    stat: str = ""

    @classmethod
    def parse(cls, key: str) -> StatKey:
        """The parts of `key`, as a configuration writes it."""
        operator, _, stat = key.partition(".")
        return cls(operator, stat)

    def __str__(self) -> str:
        return f"{self.operator}.{self.stat}" if self.stat else self.operator


class ShardName(NamedTuple):
    """What a shard is called, `<prefix>-<number>`: the prefix is the pool file's name, or the generated source's."""

    prefix: str
    number: int

    @classmethod
    def parse(cls, name: str) -> ShardName:
        """The parts of a name such as `stage_1-0007`."""
        prefix, _, number = name.rpartition("-")
        return cls(prefix, int(number))

    def __str__(self) -> str:
        return f"{self.prefix}-{self.number:04d}"

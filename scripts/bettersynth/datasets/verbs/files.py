"""Keep what came from some of the pool's files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from bettersynth.configuration.checks import unknown
from bettersynth.configuration.verb import Names, Parents, RowCount
from bettersynth.configuration.wording import listed
from bettersynth.core.names import ShardName
from bettersynth.datasets.ledger import Outcome, Reasons, split

if TYPE_CHECKING:
    from bettersynth.configuration.types import Configuration
    from bettersynth.datasets.step import Step


class Files(Names):
    """Keep rows whose record came from these pool files."""

    def problems(self, key: str, configuration: Configuration) -> Iterable[str]:
        """Files that the pool does not have."""
        names = [file.name for file in configuration.pool.files]
        return (unknown(key, "pool file", file, names) for file in self.root if file not in names)

    def expected(self, parents: Parents) -> RowCount:
        """All rows of the files, of the whole pool."""
        if parents.pool_file is None:
            return super().expected(parents)
        return RowCount(sum(map(parents.pool_file, self.root)))

    def apply(self, step: Step) -> Outcome:
        """A record's shard tells its file."""
        index = step.pool_shards()
        shard = index["shard"].take(pc.index_in(step.rows["id"], value_set=index["id"]))
        mine = [name for name in pc.unique(shard).to_pylist() if ShardName.parse(name).prefix in self.root]
        reasons = Reasons(step.rows.num_rows)
        reasons.drop(~pc.is_in(shard, value_set=pa.array(mine, pa.string())).to_numpy(), "of another file")
        return split(step.rows, reasons)

    def brief(self) -> str:
        """The files."""
        return f"files {', '.join(self.root)}"

    def sentence(self, configuration: Configuration) -> str:
        """The files."""
        return f"keep the records of the pool's files {listed(self.root)}"

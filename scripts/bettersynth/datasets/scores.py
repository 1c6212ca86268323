"""Scores of a dataset's rows, refused when they are of other records."""

from __future__ import annotations

import pyarrow as pa

from bettersynth.core.layout import Layout
from bettersynth.core.names import StatKey
from bettersynth.core.publish import read_json
from bettersynth.core.remedy import again
from bettersynth.core.tables import read_table
from bettersynth.datasets.values import Values, values_of
from bettersynth.pool.rows import align, records_sha256
from bettersynth.workflow.plan import Plan


def load_values(rows: pa.Table, key: StatKey, layout: Layout, plan: Plan) -> Values:
    """The values of a score for every row in order.

    Raises ValueError for a missing or stale score, and for an operator with several stats when none is chosen.
    """
    operator, stat = key
    table = load_scores(rows, operator, layout, plan)
    stats = [name for name in table.column_names if name != "id"]
    if not stat and len(stats) == 1:
        stat = stats[0]
    if stat not in stats:
        choices = ", ".join(f"`{StatKey(operator, name)}`" for name in stats)
        raise ValueError(f"`{key}` does not name one stat of the operator `{operator}`; write one of {choices}")
    return values_of(str(StatKey(operator, stat)), table[stat])


def load_scores(rows: pa.Table, operator: str, layout: Layout, plan: Plan) -> pa.Table:
    """The scores of one operator, `id` and its stats, for every row in order; raises ValueError when stale."""

    def scores_of(source: str, ids: pa.ChunkedArray) -> pa.Table:
        _check_current(source, operator, layout, plan)
        return read_table(layout.scores(source, operator))

    return align(rows, scores_of, f"scores of `{operator}`")


def _check_current(source: str, operator: str, layout: Layout, plan: Plan) -> None:
    path = layout.scores(source, operator)
    shards = read_json(layout.scores_card(source, operator))["shards"]
    scored = {shard: entry["records"] for shard, entry in shards.items()}
    present = records_sha256(source, layout, plan)
    other = sorted(shard for shard in present.keys() | scored.keys() if present.get(shard) != scored.get(shard))
    if other:
        raise ValueError(
            f"{path} was made from other records than the present {layout.records(source, other[0])} "
            f"({len(other)} shards differ); gather them again: {again(path)}"
        )

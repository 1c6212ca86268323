"""Rows and the records behind them: which rows a dataset has, and the late join of text and images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bettersynth.core.layout import Layout
from bettersynth.core.names import ShardName
from bettersynth.core.publish import read_json
from bettersynth.core.records import POOL, ROWS, SCHEMA, original_id, record_table
from bettersynth.core.sharding import shard_name, shard_number
from bettersynth.core.tables import BATCH_ROWS, read_table
from bettersynth.workflow.plan import Plan


def read_rows(dataset: str, layout: Layout) -> pa.Table:
    """The rows `(id, source)` of a dataset, or of the pool."""
    if dataset != POOL:
        return read_table(layout.rows(dataset), ROWS.names)
    ids = read_table(layout.index, ["id"])["id"]
    return pa.table([ids, pa.repeat(POOL, len(ids))], ROWS)


def asked_rows(rows: pa.Table, shard: str, shards: int) -> pa.Table:
    """The distinct rows that a generator's shard is asked for, in the dataset's order.

    `shard` is one of `<source>-0000` … of `shards`; the hash of the id decides, as in the pool.
    """
    wanted = ShardName.parse(shard).number
    distinct = rows.to_pandas().drop_duplicates()
    mine = np.array([shard_number(record_id, shards) == wanted for record_id in distinct["id"]], bool)
    return pa.Table.from_pandas(distinct[mine], ROWS, preserve_index=False).replace_schema_metadata(None)


def load_records(rows: pa.Table, layout: Layout, plan: Plan) -> pa.Table:
    """The records of the rows, in their order and as often: `id, source, text, images, image_root`.

    Raises ValueError when a row's record is not in its source.
    """

    def records_of(source: str, ids: pa.ChunkedArray) -> pa.Table:
        paths = [layout.records(source, shard) for shard in _shards_of(source, ids, plan)]
        return pa.concat_tables(record_table(path) for path in paths)

    joined = align(rows, records_of, "records") if rows.num_rows else SCHEMA.empty_table()
    return joined.add_column(1, "source", rows["source"])


def _shards_of(source: str, ids: pa.ChunkedArray, plan: Plan) -> list[str]:
    """The shards of a source that may hold the ids, in order: of a few ids, few of many shards."""
    every = plan.shards(source)
    makes_variants = source != POOL and plan.makes_variants(source)  # which lie where their originals' ids say
    if source == POOL:
        prefixes = {file.name: file.shards for file in plan.configuration.pool.files}
    else:
        prefixes = {source: len(every)}
    found: set[str] = set()
    for record_id in ids:
        deciding = original_id(record_id.as_py()) if makes_variants else record_id.as_py()
        found.update(shard_name(prefix, deciding, shards) for prefix, shards in prefixes.items())
        if len(found) == len(every):
            break
    return [shard for shard in every if shard in found]


def records_sha256(source: str, layout: Layout, plan: Plan) -> dict[str, str]:
    """Shard → sha256 of its records, as the cards of a source say."""
    if source != POOL:
        return {shard: read_json(layout.records_card(source, shard))["sha256"] for shard in plan.shards(source)}
    ledgers = [read_json(layout.file_ledger(file.name)) for file in plan.configuration.pool.files]
    return {shard: entry["sha256"] for ledger in ledgers for shard, entry in ledger["shards"].items()}


def align(rows: pa.Table, table_of: Callable[[str, pa.ChunkedArray], pa.Table], what: str) -> pa.Table:
    """The rows of the sources' tables that belong to `rows`, in their order and as often.

    `table_of(source, ids)` gives a table with a column `id`, these ids and maybe others in it. Of equal ids the first
    counts: in the pool, that of the file configured first, as in the index. Raises ValueError when an id is not there.
    There is one row at least.
    """
    sources = rows["source"].to_numpy()
    parts, places = [], []
    for source in pc.unique(rows["source"]).to_pylist():
        place = np.flatnonzero(sources == source)
        ids = rows["id"].take(pa.array(place))
        table = table_of(source, ids)
        found = pc.index_in(ids, value_set=table["id"])
        if found.null_count:
            missing = ids.filter(pc.is_null(found))
            examples = ", ".join(pc.unique(missing).to_pylist()[:5])
            raise ValueError(
                f"{len(missing)} rows of source `{source}` have no {what}, such as {examples}: the {what} are of other "
                f"records than the dataset; delete those of `{source}` and run again"
            )
        parts.append(_take(table, found))
        places.append(place)
    if len(parts) == 1:
        return parts[0]
    joined = pa.concat_tables(parts, promote_options="permissive")
    return _take(joined, pa.array(np.argsort(np.concatenate(places))))


def _take(table: pa.Table, places: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The table's rows at these places, some at a time: of lists Arrow would number every element in eight bytes."""
    table = table.combine_chunks()
    starts = range(0, max(len(places), 1), BATCH_ROWS)
    return pa.concat_tables(table.take(places.slice(start, BATCH_ROWS)) for start in starts)

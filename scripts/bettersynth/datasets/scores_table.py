"""All that is known of every record as one plain table, for tools that read Parquet.

One row for each record of each source: `id`, `source`, `caption`, `image` (a path from the present folder, or nothing
for a record without a picture) and `images` (all of them); then each score under its key. A score is a
number or a word where no record has several values, otherwise a list.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bettersynth.configuration.operators import operator_spec
from bettersynth.core.image_paths import ImageProblem
from bettersynth.core.layout import Layout
from bettersynth.core.names import StatKey
from bettersynth.core.publish import publish
from bettersynth.core.records import POOL, ROWS, caption_of, record_table
from bettersynth.core.tables import GROUP_ROWS
from bettersynth.datasets.scores import load_scores
from bettersynth.pool.images import ImageRoots
from bettersynth.pool.rows import load_records, read_rows
from bettersynth.workflow.plan import Plan


def write_scores_table(layout: Layout, plan: Plan) -> pa.Table:
    """Publish the table of all records that are there, and return it. Raises ValueError for stale scores."""
    sources = [source_rows(source, layout, plan) for source in sources_there(layout, plan)]
    records = _records(load_records(pa.concat_tables(sources), layout, plan), layout, plan)
    for key, column in _scores(sources, layout, plan):
        records = records.append_column(key, column)
    # plainly written: other tools need not know of this project's check of a table's bytes
    with publish(layout.scores_table) as temporary:
        pq.write_table(records, temporary, compression="zstd", row_group_size=GROUP_ROWS)
    return records


def sources_there(layout: Layout, plan: Plan) -> list[str]:
    """The pool, and the generated sources that are made, in the configuration's order."""
    made = [name for name in plan.generators if layout.rows(name).exists()]
    return [POOL, *made]


def source_rows(source: str, layout: Layout, plan: Plan) -> pa.Table:
    """The rows `(id, source)` of all records of a source, in its order."""
    if source == POOL:
        return read_rows(POOL, layout)
    ids = [record_table(layout.records(source, shard))["id"] for shard in plan.shards(source)]
    column = pa.chunked_array([chunk for one in ids for chunk in one.chunks], pa.string())
    return pa.table([column, pa.repeat(source, len(column))], ROWS)


def _records(records: pa.Table, layout: Layout, plan: Plan) -> pa.Table:
    """Ids, sources, captions and paths of images."""
    roots = ImageRoots(plan.configuration.pool, layout)
    pairs = zip(records["image_root"].to_pylist(), records["images"].to_pylist(), strict=True)
    images = [[path for image in each or () if (path := _path(roots, root, image))] for root, each in pairs]
    return pa.table(
        {
            "id": records["id"],
            "source": records["source"],
            "caption": [caption_of(text) for text in records["text"].to_pylist()],
            "image": pa.array([each[0] if each else None for each in images], pa.string()),
            "images": pa.array(images, pa.list_(pa.string())),
        }
    )


def _path(roots: ImageRoots, image_root: str, image: str) -> str | None:
    """From the present folder; nothing for a path that leaves the folder of images."""
    try:
        roots.resolved(image_root, image)
    except ImageProblem:
        return None
    return roots.plain(image_root, image).as_posix()


def _scores(sources: list[pa.Table], layout: Layout, plan: Plan) -> Iterator[tuple[str, pa.Array]]:
    """Each score under its key, for all rows of the sources; nothing where an operator has not scored a source."""
    for name, operator in plan.configuration.operators.items():
        stats = operator_spec(operator.op).stats
        tables = [_table(rows, name, layout, plan) for rows in sources]
        for stat in stats if any(table is not None for table in tables) else ():
            key = StatKey(name, stat if len(stats) > 1 else "")
            yield str(key), _plain([table and table[stat] for table in tables], [len(rows) for rows in sources])


def _table(rows: pa.Table, operator: str, layout: Layout, plan: Plan) -> pa.Table | None:
    source = rows["source"][0].as_py() if rows.num_rows else None
    return load_scores(rows, operator, layout, plan) if source and layout.scores(source, operator).exists() else None


def _plain(columns: list[pa.ChunkedArray | None], lengths: list[int]) -> pa.Array:
    """One column of several sources': of lists that have one element at most, the elements."""
    tables = [
        pa.table({"score": pa.nulls(length) if column is None else column})
        for column, length in zip(columns, lengths, strict=True)
    ]
    whole = pa.concat_tables(tables, promote_options="permissive")["score"].combine_chunks()
    if not pa.types.is_list(whole.type):
        return whole
    counts = pc.fill_null(pc.list_value_length(whole), 0).to_numpy()
    if counts.max(initial=0) > 1:
        return whole
    places = np.where(counts == 1, np.cumsum(counts) - 1, -1)
    return pc.list_flatten(whole).take(pa.array(places, mask=places < 0))

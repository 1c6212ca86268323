"""Results of a drawn pool, as ingest and scoring leave them, without running either."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from bench._drawn import captions, draw_scores
from bench._photographs import draw_photographs
from bettersynth.core.publish import sha256_file, write_json
from bettersynth.core.records import POOL, SCHEMA, text_of
from bettersynth.core.sharding import shard_name
from bettersynth.core.tables import write_table
from bettersynth.datasets.build import build_dataset
from bettersynth.workflow.roots import roots_of
from bettersynth.workflow.run import Run


def write(run: Run, records: int, pictures: int) -> None:
    """Records, index, scores and datasets of a pool of one drawn source, in the present folder."""
    layout, plan, pool = run.layout, run.plan, run.configuration.pool
    ids = [f"{17 * place:09d}" for place in range(records)]
    folder = Path(roots_of(pool).places[0])
    if not folder.exists():
        draw_photographs(folder, pictures)
    shards = sum(file.shards for file in pool.files)
    first, index, digests = 0, [], {}
    for file in pool.files:
        mine = ids[first : first + records * file.shards // shards] if file is not pool.files[-1] else ids[first:]
        first += len(mine)
        digests[file.name] = _write_file(run, file.name, file.shards, mine, pictures)
        index += [{"id": name, "shard": shard_name(file.name, name, file.shards)} for name in mine]
    write_table(layout.index, pa.Table.from_pylist(index))
    write_json(layout.index_card, {"rows": records, "sha256": sha256_file(layout.index)})
    cards = {shard: {"records": digest} for of_file in digests.values() for shard, digest in of_file.items()}
    for operator in run.configuration.operators:
        write_table(layout.scores(POOL, operator), draw_scores(POOL, operator, ids, plan))
        write_json(layout.scores_card(POOL, operator), {"shards": cards})
    for dataset in run.configuration.datasets:
        build_dataset(dataset, run.configuration, layout, plan)


def _write_file(run: Run, name: str, shards: int, ids: list[str], pictures: int) -> dict[str, str]:
    """Records of one raw file by shard, and their digests."""
    rows: dict[str, list[tuple[str, str]]] = {}
    for record, caption in zip(ids, captions(POOL, ids), strict=True):
        rows.setdefault(shard_name(name, record, shards), []).append((record, caption))
    digests = {}
    for shard in run.plan.shards(POOL):
        if shard in rows:
            path = run.layout.records(POOL, shard)
            names, texts = zip(*rows[shard], strict=True)
            images = [[f"{int(record) // 17 % pictures}.jpg"] for record in names]
            columns = [names, map(text_of, texts), images, [POOL] * len(names), [None] * len(names)]
            arrays = [pa.array(list(column), field.type) for column, field in zip(columns, SCHEMA, strict=True)]
            write_table(path, pa.table(arrays, SCHEMA))
            digests[shard] = sha256_file(path)
    write_json(
        run.layout.file_ledger(name), {"rows": len(ids), "shards": {s: {"sha256": d} for s, d in digests.items()}}
    )
    return digests

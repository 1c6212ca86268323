"""Small pools of real images and captions for the tests of the data plane."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.names import StatKey
from bettersynth.core.publish import sha256_file, write_json
from bettersynth.core.records import POOL, text_of
from bettersynth.core.tables import read_table, write_table
from bettersynth.datasets.step import Step
from bettersynth.datasets.values import Values
from bettersynth.pool.ingest import build_index, ingest_file
from bettersynth.workflow.plan import Plan


class MemoryStep(Step):
    """A step over tables in memory: the rows, other parents' rows, values by score, scores by operator."""

    def __init__(self, rows: pa.Table, **tables: Any) -> None:
        self.rows, self.others = rows, tables.get("others", {})
        self._tables = tables

    def values(self, key: StatKey) -> Values:
        return self._tables["values"][str(key)]

    def tolerance(self, key: StatKey) -> float:
        return 0

    def scores(self, operator: str) -> pa.Table:
        return self._tables["scores"][operator]

    def operators(self) -> list[str]:
        return list(self._tables["scores"])

    def records(self) -> pa.Table:
        return self._tables["records"]

    def asked(self) -> list[pa.Table]:
        return self._tables["asked"]


def write_image(path: Path, size: tuple[int, int] = (24, 16), colour: str = "teal", **options: Any) -> Path:
    """A plain picture; the name's ending decides the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def pair(record_id: Any, caption: str = "a teal square", image: str = "images/one.png") -> dict[str, Any]:
    """A record in Data-Juicer's form."""
    return {"id": record_id, "text": text_of(caption), "images": [image]}


def llava_pair(
    record_id: str, caption: str, image: str = "images/one.png", question: str = "What is it?"
) -> dict[str, Any]:
    """A record in LLaVA's form."""
    turns = [{"from": "human", "value": f"{question}\n<image>"}, {"from": "gpt", "value": caption}]
    return {"id": record_id, "image": image, "conversations": turns}


def write_jsonl(path: Path, records: Iterable[Any]) -> Path:
    """JSON lines."""
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def configure_pairs(
    folder: Path, files: dict[str, Sequence[Any]], *, shards: int = 3, **sections: Any
) -> Configuration:
    """A configuration over JSONL files of these records, written to `folder`; `pool` keys come as `pool={…}`."""
    write_image(folder / "images" / "one.png")
    entries = [
        {"name": name, "path": str(write_jsonl(folder / f"{name}.jsonl", records)), "shards": shards}
        for name, records in files.items()
    ]
    pool = {"files": entries, "images": str(folder)} | sections.pop("pool", {})
    return Configuration.model_validate({"name": "pairs", "pool": pool, **sections})


def make_pool(configuration: Configuration, folder: Path) -> tuple[Layout, Plan]:
    """Take the raw files in."""
    layout = Layout(folder / "results")
    for file in configuration.pool.files:
        ingest_file(configuration.pool, file, layout)
    build_index(configuration.pool, layout)
    return layout, Plan(configuration)


def write_scores(
    layout: Layout, plan: Plan, operator: str, values: dict[str, dict[str, Any]], source: str = POOL
) -> None:
    """Score shards of a source from `{id: {stat: value}}`, with the cards that a scorer writes."""
    schema = pa.Table.from_pylist([{"id": name, **stats} for name, stats in values.items()]).schema
    paths = [layout.records(source, shard) for shard in plan.shards(source)]
    ids = [name for path in paths for name in read_table(path, ["id"])["id"].to_pylist()]
    table = pa.Table.from_pylist([{"id": name, **values[name]} for name in ids], schema)
    write_table(layout.scores(source, operator), table)
    shards = {path.stem: {"records": sha256_file(path), "key": "made-up"} for path in paths}
    write_json(layout.scores_card(source, operator), {"shards": shards})


def pairs_of(table: pa.Table) -> list[tuple[str, str]]:
    """`(id, source)` of each row."""
    return list(zip(table["id"].to_pylist(), table["source"].to_pylist(), strict=True))

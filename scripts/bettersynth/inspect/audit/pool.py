"""The pool: every line of every raw file is a record of one shard or in quarantine, and the index orders them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from bettersynth.configuration.pool import PoolFile
from bettersynth.core.digests import model_identity
from bettersynth.core.publish import json_lines, read_json
from bettersynth.core.records import POOL, record_table
from bettersynth.core.sharding import shard_name
from bettersynth.core.tables import read_table
from bettersynth.inspect.audit import scores
from bettersynth.inspect.audit.links import Audited, Link
from bettersynth.pool.ingest import index_of
from bettersynth.workflow.digests import is_remembered_rightly
from bettersynth.workflow.manifest import Problem
from bettersynth.workflow.pictures import Look


def links(audited: Audited) -> Iterator[Link]:
    """What is remembered of inputs, each raw file, the index, and the pool's scores."""
    layout = audited.layout
    remembered = {
        layout.claim: _claim,
        layout.digests: _digests,
        layout.looks: _looks,
        layout.models: _models,
        layout.inputs: _inputs,
    }
    yield from (Link(path, partial(look, audited)) for path, look in remembered.items() if path.exists())
    for file in audited.configuration.pool.files:
        if layout.file_ledger(file.name).exists():
            yield Link(layout.file_ledger(file.name), partial(_file, audited, file))
    if layout.index_card.exists():
        yield Link(layout.index_card, partial(_index, audited))
    yield from scores.links(audited, POOL)


def _file(audited: Audited, file: PoolFile) -> Iterator[Problem]:
    layout, path = audited.layout, audited.layout.file_ledger(file.name)
    card = audited.card(path)
    yield from audited.made_of(path, card["inputs"], {})
    audited.check_beside(path)
    refused = sum(card["quarantined"].values())
    yield from audited.mismatch(path, "lines", card["lines"], card["rows"] + refused)
    yield from audited.mismatch(path, "rows", sum(entry["rows"] for entry in card["shards"].values()), card["rows"])
    if layout.seen(file.name).exists():
        read_table(layout.seen(file.name))
    order = read_table(layout.order(file.name), ["id", "shard", "line"])
    yield from _quarantine(audited, file, order)
    images = read_table(layout.images(file.name)).select(["image", "sha256"]).to_pydict()
    digests = dict(zip(images["image"], images["sha256"], strict=True))
    shards = order["shard"]
    for shard, entry in card["shards"].items():
        records = layout.records(POOL, shard)
        audited.check(records, entry["sha256"], path)
        table = record_table(records)
        yield from audited.mismatch(records, "rows", table.num_rows, entry["rows"], path)
        ids = table["id"].to_pylist()
        ordered = sorted(order["id"].filter(pc.equal(shards, shard)).to_pylist())
        if ids != ordered:
            yield audited.problem(records, f"its records are not those that {layout.order(file.name)} has for it", path)
        if strays := [name for name in ids if shard_name(file.name, name, file.shards) != shard]:
            yield audited.problem(records, f"{len(strays)} records belong to other shards, such as {strays[0]}", path)
        if table["image_sha256"].null_count == 0:
            pairs = zip(_flat(table["images"]), _flat(table["image_sha256"]), strict=True)
            if other := [image for image, sha256 in pairs if digests.get(image) != sha256]:
                what = f"{len(other)} pictures are others than {layout.images(file.name)} has, such as {other[0]}"
                yield audited.problem(records, what, path)


def _flat(column: pa.ChunkedArray) -> list[str]:
    found: list[str] = column.combine_chunks().flatten().to_pylist()
    return found


def _quarantine(audited: Audited, file: PoolFile, order: pa.Table) -> Iterator[Problem]:
    """Refused lines by reason, as the ledger counts them, and no line both a record and refused."""
    path, ledger = audited.layout.quarantine(file.name), audited.layout.file_ledger(file.name)
    refused = list(json_lines(path))
    counts = dict(sorted(Counter(line["reason"] for line in refused).items()))
    yield from audited.mismatch(path, "refused lines", counts, audited.card(ledger)["quarantined"], ledger)
    lines = Counter([*order["line"].to_pylist(), *(line["line"] for line in refused)])
    if twice := [line for line, times in lines.items() if times > 1]:
        yield audited.problem(path, f"{len(twice)} lines are there twice, such as line {twice[0]}", ledger)


def _index(audited: Audited) -> Iterator[Problem]:
    layout, pool = audited.layout, audited.configuration.pool
    path, card = layout.index_card, audited.card(layout.index_card)
    audited.check(layout.index, card["sha256"], path)
    orders = {file.name: layout.order(file.name) for file in pool.files}
    yield from audited.made_of(path, card["inputs"], orders)
    table, facts = index_of(pool, layout)
    if not read_table(layout.index).equals(table):
        yield audited.problem(layout.index, "is not what the orders of the raw files make", path)
    for key, value in facts.items():
        yield from audited.mismatch(path, key, card[key], value)


# what is remembered of inputs, from one graph to the next
def _claim(audited: Audited) -> Iterator[Problem]:
    if not isinstance(read_json(audited.layout.claim).get("file"), str):
        yield audited.problem(audited.layout.claim, "does not name a configuration's file")


def _digests(audited: Audited) -> Iterator[Problem]:
    path, pool = audited.layout.digests, audited.configuration.pool
    for file in pool.files:
        if not is_remembered_rightly(pool, file, path):
            yield audited.problem(path, f"other digests of {file.path} than its records give")


def _looks(audited: Audited) -> Iterator[Problem]:
    """A look that found no change says what was read in; one that did is of pictures that may have changed again."""
    pool = audited.configuration.pool
    for file, noted in read_json(audited.layout.looks).items():
        found = Look(**{**noted, "shards": tuple(noted["shards"])})
        ledger = audited.layout.file_ledger(file)
        card = audited.card(ledger) if ledger.exists() else {}
        roots = {pool.images, card.get("parameters", {}).get("images", pool.images)}
        known = file in {entry.name for entry in pool.files} and found.root in roots
        if not known or (card and not found.shards and found.stamp != card.get("pictures")):
            yield audited.problem(audited.layout.looks, f"says other pictures of {file} than were read in")


def _models(audited: Audited) -> Iterator[Problem]:
    known = read_json(audited.layout.models)
    for name, model in audited.configuration.models.items():
        found = model_identity(model.path)
        if name in known and found and known[name] not in ([model.path, found], [model.path, known.get(f"@{found}")]):
            yield audited.problem(audited.layout.models, f"another identity of the model {name} than {model.path} has")
    names = {name for name in known if not name.startswith("@")}
    if unknown := sorted(names - audited.configuration.models.keys()):
        yield audited.problem(audited.layout.models, f"a model {unknown[0]} that the configuration has not")


def _inputs(audited: Audited) -> Iterator[Problem]:
    for name, known in read_json(audited.layout.inputs).items():
        last = known[-1] if isinstance(known, list) else known
        if Path(name).exists() and audited.sha256(Path(name)) != last:
            yield audited.problem(audited.layout.inputs, f"another digest of {name} than it has")

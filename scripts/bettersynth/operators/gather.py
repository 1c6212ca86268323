"""One table of scores for a source and an operator, from the shards that its passes scored."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from bettersynth.core.digests import check, digests
from bettersynth.core.layout import Layout
from bettersynth.core.publish import Card, read_json, sha256_file
from bettersynth.core.remedy import DamagedError
from bettersynth.core.tables import read_table, write_table
from bettersynth.workflow.passes import is_scored
from bettersynth.workflow.plan import Plan


def gather_scores(source: str, operator: str, pass_cards: Iterable[str | Path], layout: Layout, plan: Plan) -> None:
    """Publish the scores of every record of a source, shard after shard, and, last, their card.

    Raises ValueError when a shard of scores is missing or is not what its job wrote.
    """
    card = Card(operator=operator, source=source)
    scored: dict[str, dict[str, Any]] = {}
    for path in pass_cards:
        for shard, entry in read_json(path)["shards"].items():
            if operator in entry["scores"]:
                scored.setdefault(shard, entry)
    if missing := [shard for shard in plan.shards(source) if shard not in scored]:
        raise ValueError(
            f"`{operator}` has not scored {missing[0]} of {source}: it or its model changed while the pass waited; "
            "run again"
        )
    shards = {
        shard: {"records": scored[shard]["records"], "key": scored[shard]["scores"][operator]}
        for shard in plan.shards(source)
    }
    paths = [layout.score_shard(source, operator, shard, entry["key"]) for shard, entry in shards.items()]
    digests(path for path in paths if path.exists())  # all at one time, for the checks below
    tables, cards = [], []
    for path in paths:
        cards.append(_card_of(path))
        tables.append(read_table(path))
    table = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    write_table(layout.scores(source, operator), table)
    card.write(
        layout.scores_card(source, operator),
        rows=table.num_rows,
        sha256=sha256_file(layout.scores(source, operator)),
        shards=shards,
        unreadable={name: why for entry in cards for name, why in entry["unreadable"].items()},
        failed={name: why for entry in cards for name, why in entry.get("failed", {}).items()},
        inputs=cards[0]["inputs"],
        parameters=cards[0]["parameters"],
    )


def _card_of(path: Path) -> dict[str, Any]:
    card_path = path.with_suffix(".json")
    if not is_scored(path):
        raise DamagedError(path, "a pass has written it, and it or its card is gone", card_path)
    card: dict[str, Any] = read_json(card_path)
    check(path, card["sha256"], card_path)
    return card

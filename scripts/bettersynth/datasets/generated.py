"""The rows of a dataset whose records a generator made (recaption, redraw, clean)."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bettersynth.core.records import FAILED, ROWS, original_id
from bettersynth.core.remedy import again
from bettersynth.core.tables import read_table
from bettersynth.datasets.ledger import DROPPED, Outcome, Reasons, split
from bettersynth.datasets.step import Step


def generated(step: Step, *, keep_original: bool = False, keep_unchanged: bool = False) -> Outcome:
    """The parent's rows with the dataset as source; those that could not be made go, with the generator's reason.

    With `keep_unchanged`, rows whose text did not change keep their source. Where a row makes several, or stays beside
    the new ones, all stand in its place, the old one first. Raises ValueError when a row was neither made nor reported
    as failed, or both.
    """
    name, rows, layout, plan = step.name, step.rows, step.layout, step.plan
    shards = plan.shards(name)
    made = pa.concat_tables(read_table(layout.records(name, shard), ["id", "text"]) for shard in shards)
    failed = pa.concat_tables(read_table(layout.failed(name, shard), FAILED.names) for shard in shards)
    variants = plan.makes_variants(name)
    parents = pa.array(map(original_id, made["id"].to_pylist()), pa.string()) if variants else made["id"]
    made_at = pc.index_in(rows["id"], value_set=parents)
    failed_at = pc.index_in(rows["id"], value_set=failed["id"])
    unclear = pc.equal(made_at.is_valid(), failed_at.is_valid())
    if pc.any(unclear).as_py():
        examples = ", ".join(rows["id"].filter(unclear).to_pylist()[:5])
        raise ValueError(
            f"the source `{name}` does not say whether it made {pc.sum(unclear).as_py()} of its rows, such as "
            f"{examples}; its shards belong to other rows: "
            f"{again(layout.records(name, shards[0]).parent)}"
        )
    reasons = Reasons(rows.num_rows)
    reasons.drop(failed_at.is_valid().to_numpy(), failed["reason"].take(failed_at).drop_null().to_pylist())
    if variants:
        new = pd.DataFrame({"parent": parents.to_pandas(), "id": made["id"].to_pandas(), "source": name})
        return _beside(rows, new, reasons, keep_original=keep_original)
    source = pa.repeat(name, rows.num_rows)
    if keep_unchanged:
        same = pc.fill_null(pc.equal(step.records()["text"], made["text"].take(made_at)), True)
        source = pc.if_else(same, rows["source"], source)
    return split(rows, reasons, result=pa.table([rows["id"], source], ROWS))


def _beside(rows: pa.Table, new: pd.DataFrame, reasons: Reasons, *, keep_original: bool) -> Outcome:
    """Each row's `new` ones (`parent`, `id`, `source`) in its place, behind the row itself where originals are kept."""
    old = rows.to_pandas()
    old["place"] = range(len(old))
    found = old[["id", "place"]].rename(columns={"id": "parent"}).merge(new, on="parent")
    parts = [old[[*ROWS.names, "place"]]] if keep_original else []
    result = pd.concat([*parts, found[[*ROWS.names, "place"]]]).sort_values("place", kind="stable")
    table = pa.Table.from_pandas(result[ROWS.names], ROWS, preserve_index=False).replace_schema_metadata(None)
    dropped = DROPPED.empty_table() if keep_original else split(rows, reasons).dropped
    added = table.num_rows + dropped.num_rows - rows.num_rows
    return Outcome(table, dropped, rows.num_rows, added=added, changed=len(found) - added)

"""How well each filter finds the pool's known defects: precision and recall against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.records import POOL
from bettersynth.core.tables import read_table
from bettersynth.pool.rows import read_rows
from bettersynth.report.distributions import interval_text

CAPTION_RIGHT = "caption_right"
CAPTION_WRONG = "caption not right"


def read_truth(path: str | Path) -> pd.DataFrame:
    """The truth's boolean columns by id, true where something is wrong (`caption_right` turned round)."""
    table = read_table(path)
    if "id" not in table.column_names:
        raise ValueError(f"{path}: the truth has no column `id`; change `report.truth`")
    names = [field.name for field in table.schema if pa.types.is_boolean(field.type)]
    frame = table.select(["id", *names]).to_pandas().set_index("id")
    if CAPTION_RIGHT in frame:
        frame.insert(0, CAPTION_WRONG, ~frame.pop(CAPTION_RIGHT))
    return frame


def filter_quality(configuration: Configuration, layout: Layout) -> dict[str, Any] | None:
    """For every filter and defect: the share of defective rows it drops (recall), of dropped rows that are
    defective (precision), and of all rows (rate); None without known truth.

    Only rows as they came from the pool count: of a rewritten pair the truth is not known.
    """
    path = configuration.report.truth
    if path is None or not Path(path).exists():
        return None
    truth = read_truth(path)
    filters = []
    for name, node in configuration.datasets.items():
        if (thresholds := node.verb.thresholds()) and layout.dropped(name).exists():
            dropped = _pool_ids(read_table(layout.dropped(name), ["id", "source"]))
            kept = _pool_ids(read_rows(name, layout))
            if len(dropped) + len(kept):
                keeps = "; ".join(interval_text(str(key), threshold) for key, threshold in thresholds.items())
                facts = {"dataset": name, "from": node.from_, "keeps": keeps, "dropped": len(dropped)}
                filters.append(facts | {"rows": len(dropped) + len(kept), "defects": _quality(truth, kept, dropped)})
    return {"defects": list(truth.columns), "filters": filters}


def _pool_ids(rows: pa.Table) -> pd.Index:
    frame = rows.to_pandas()
    return pd.Index(frame.loc[frame["source"] == POOL, "id"])


def _quality(truth: pd.DataFrame, kept: pd.Index, dropped: pd.Index) -> dict[str, dict[str, float | None]]:
    every = truth.reindex(kept.append(dropped))
    known = every.notna().all(axis=1)
    every = every[known].astype(bool)
    gone = pd.Series([False] * len(kept) + [True] * len(dropped), index=range(len(known)))[known.to_numpy()].to_numpy()
    found = every[gone].sum()
    return {
        defect: {
            "rate": float(every[defect].mean()) if len(every) else None,
            "recall": float(found[defect] / every[defect].sum()) if every[defect].any() else None,
            "precision": float(found[defect] / gone.sum()) if gone.any() else None,
        }
        for defect in truth.columns
    }

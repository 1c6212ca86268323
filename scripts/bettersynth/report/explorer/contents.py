"""What the explorer's page holds: rows, scores, datasets, texts and pictures of one configuration, as far as made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bettersynth.configuration.operators import operator_spec
from bettersynth.core.names import StatKey
from bettersynth.core.records import POOL, caption_of, original_id
from bettersynth.datasets.columns import Column
from bettersynth.datasets.scores import load_scores
from bettersynth.datasets.scores_table import source_rows, sources_there
from bettersynth.datasets.values import Values, values_of
from bettersynth.datasets.verbs.filter import Filter
from bettersynth.pool.images import ImageRoots
from bettersynth.pool.rows import load_records, read_rows
from bettersynth.report.explorer.codes import NOT_SCORED, Coded, encode
from bettersynth.report.explorer.pictures import Album, choose
from bettersynth.workflow.expected import Expected
from bettersynth.workflow.run import Run


class Score(NamedTuple):
    """One stat of all rows, and which of them have been scored."""

    column: Column
    coded: Coded
    scored: npt.NDArray[np.bool_]
    bounds: list[float]
    """Those that the configuration uses."""


@dataclass
class Contents:
    """All rows of the pool and of the generated sources, one after the other, and what is known of them.

    Raises ValueError for stale scores and rows.
    """

    run: Run
    most_pictures: int
    unscored: list[str] = field(default_factory=list)
    """Operators that have not scored the pool."""

    @cached_property
    def sources(self) -> dict[str, pa.Table]:
        """Rows `(id, source)` of each source that is there, the pool first."""
        layout, plan = self.run.layout, self.run.plan
        return {name: source_rows(name, layout, plan) for name in sources_there(layout, plan)}

    @cached_property
    def starts(self) -> dict[str, int]:
        """Where the rows of each source begin."""
        ends = np.cumsum([0, *(rows.num_rows for rows in self.sources.values())]).tolist()
        return dict(zip(self.sources, ends, strict=False))

    @cached_property
    def records(self) -> pa.Table:
        """The records of all rows."""
        return load_records(pa.concat_tables(self.sources.values()), self.run.layout, self.run.plan).combine_chunks()

    @cached_property
    def captions(self) -> list[str]:
        """The caption of every row."""
        return [caption_of(text) for text in self.records["text"].to_pylist()]

    @cached_property
    def origins(self) -> npt.NDArray[np.int32]:
        """For each row, the row that it was made of; −1 for one of the pool."""
        found = [np.full(self.sources[POOL].num_rows, -1, np.int32)]
        for name, rows in self.sources.items():
            if name != POOL:
                ids = rows["id"]
                if self.run.plan.makes_variants(name):
                    ids = pa.array(map(original_id, ids.to_pylist()), pa.string())
                before = read_rows(self.run.plan.dataset(name).from_, self.run.layout)
                place = pc.index_in(ids, value_set=before["id"])
                found.append(self.places(before.take(pc.fill_null(place, 0))).astype(np.int32))
        return np.concatenate(found)

    def places(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        """Where rows `(id, source)` stand among all rows. Raises ValueError for one that is not among them."""
        found = np.full(rows.num_rows, -1, np.int64)
        for source, start in self.starts.items():
            mine = pc.equal(rows["source"], source)
            place = pc.index_in(rows["id"].filter(mine), value_set=self.sources[source]["id"])
            found[mine.to_numpy()] = pc.fill_null(place, -1 - start).to_numpy().astype(np.int64) + start
        if (found < 0).any():
            missing = rows["id"][int(np.flatnonzero(found < 0)[0])]
            raise ValueError(f"the row {missing} is of no source that is there; make the dataset again")
        return found

    @cached_property
    def scores(self) -> list[Score]:
        """Every stat that can be filtered by, in the operators' order."""
        return list(self._scores())

    def _scores(self) -> Iterator[Score]:
        run = self.run
        for name, operator in run.configuration.operators.items():
            stats = operator_spec(operator.op).stats
            there = {source: run.layout.scores(source, name).exists() for source in self.sources}
            if not there[POOL]:
                self.unscored.append(name)
                continue
            tables = {
                source: load_scores(rows, name, run.layout, run.plan)
                for source, rows in self.sources.items()
                if there[source] and rows.num_rows
            }
            for stat in (stat for stat, kind in stats.items() if kind != "vector"):
                key = StatKey(name, stat if len(stats) > 1 else "")
                score = self._score(key, stat, tables)
                if score is not None:
                    yield score

    def _score(self, key: StatKey, stat: str, tables: Mapping[str, pa.Table]) -> Score | None:
        parts = [
            tables[source][stat] if source in tables else pa.nulls(rows.num_rows)
            for source, rows in self.sources.items()
        ]
        joined = pa.concat_tables([pa.table({"s": part}) for part in parts], promote_options="permissive")["s"]
        values: Values = values_of(f"{key.operator}.{stat}", joined)
        bounds = sorted(self._used.get(key, set()))
        coded = encode(values, bounds)
        if coded is None:
            return None
        lengths = [(source in tables, rows.num_rows) for source, rows in self.sources.items()]
        scored = np.repeat(*map(np.array, zip(*lengths, strict=True)))
        coded.first[~scored] = NOT_SCORED
        return Score(Column(key, values), coded, scored, bounds)

    @cached_property
    def _used(self) -> dict[StatKey, set[float]]:
        """Bounds of the configuration's datasets by score."""
        found: dict[StatKey, set[float]] = {}
        for node in self.run.configuration.datasets.values():
            for key, threshold in node.verb.thresholds().items():
                ends = [end for end in (threshold.min, threshold.max) if end is not None]
                found.setdefault(self.key_of(key), set()).update(ends)
        return found

    def key_of(self, key: StatKey) -> StatKey:
        """A score's key as the page names it: without the stat, where it is the operator's only one."""
        stats = operator_spec(self.run.configuration.operators[key.operator].op).stats
        return StatKey(key.operator, (key.stat or next(iter(stats))) if len(stats) > 1 else "")

    def datasets(self) -> Iterator[tuple[dict[str, Any], npt.NDArray[np.int64] | None]]:
        """What the page tells of each dataset, and how often each row is in it; nothing for one that is not made."""
        expected = Expected(self.run.configuration, self.run.layout, self.run.plan)
        for name, node in self.run.configuration.datasets.items():
            made = expected.card(name) is not None
            rows = read_rows(name, self.run.layout) if made else None
            yield (
                {
                    "name": name,
                    "from": node.from_,
                    "verb": node.verb.name,
                    "brief": "; ".join(node.verb.brief().splitlines()),
                    "rows": None if rows is None else rows.num_rows,
                    "filter": {
                        str(self.key_of(key)): threshold.model_dump(exclude_none=True)
                        for key, threshold in node.verb.thresholds().items()
                    }
                    if isinstance(node.verb, Filter)
                    else None,
                },
                None if rows is None else np.bincount(self.places(rows), minlength=self.records.num_rows),
            )

    @cached_property
    def sample(self) -> list[int]:
        """Rows that have a picture in the page: chosen ones of the pool, and of what was made of them."""
        pool = self.sources[POOL].num_rows
        numeric = [score for score in self.scores if score.coded.words is None]
        cut = [Column(score.column.key, _head(score.column.values, pool)) for score in numeric]
        ids = self.sources[POOL]["id"].to_pylist()
        chosen = choose(cut, [score.bounds for score in numeric], ids, self.most_pictures)
        of_chosen = np.isin(self.origins, chosen) & (self.origins >= 0)
        made = np.flatnonzero(of_chosen).tolist()
        for source, start in self.starts.items():  # of each source as many as there is room for, at least
            rows = range(start, start + self.sources[source].num_rows)
            made += [] if source == POOL else rows[: max(1, self.most_pictures // 20)]
        before = [int(origin) for origin in self.origins[made] if origin >= 0]
        return sorted({*chosen, *made, *before})

    def album(self) -> tuple[Album, list[int]]:
        """Thumbnails, and which of them each row of the sample shows."""
        album = Album(ImageRoots(self.run.configuration.pool, self.run.layout))
        return album, album.places(self.records.take(pa.array(self.sample)))


def _head(values: Values, rows: int) -> Values:
    """The values of the first rows."""
    return Values(values.label, values.flat[: values.starts[rows]], values.starts[: rows + 1])

"""Passes: which operators score which shards together, so that a job loads models once and decodes an image once.

A pass is a set of operators that a job applies to a chunk of shards. Which operators still have to score a shard is
looked up when the graph is built; those that scored it already are left out, so a new or changed operator is scored
by itself and nothing else is touched. What a pass consists of is written down below the results, because a job on
another machine is given the name of its pass only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from bettersynth.configuration.operators import operator_spec
from bettersynth.configuration.types import Configuration
from bettersynth.core.cached import cached_method
from bettersynth.core.layout import Layout
from bettersynth.core.names import ShardName
from bettersynth.core.publish import read_json, sha256_json, where_allowed, write_sealed
from bettersynth.core.records import POOL
from bettersynth.workflow.plan import Plan, Scores

CHUNK_PATTERN = r"[a-z0-9_]+-\d{4}-\d{4}"
"""`<prefix>-<first shard>-<last shard>`, such as `stage_1-0000-0015`."""

PASS_PATTERN = r"(gpu|cpu)-[0-9a-f]{12}"


class Chunk(NamedTuple):
    """A pass over a chunk of shards: what one job does, and the card it leaves."""

    scoring: str
    chunk: str


def chunk_name(shards: list[str]) -> str:
    """The name of a run of shards: the first one's, and the last one's number."""
    return f"{shards[0]}-{ShardName.parse(shards[-1]).number:04d}"


def chunk_shards(chunk: str) -> list[str]:
    """The shards of a chunk, in order."""
    run, _, last = chunk.rpartition("-")
    prefix, first = ShardName.parse(run)
    return [str(ShardName(prefix, number)) for number in range(first, int(last) + 1)]


def is_scored(scores: Path) -> bool:
    """Whether a shard's scores are there, and their card, which is written last."""
    return scores.exists() and scores.with_suffix(".json").exists()


def pass_operators(scoring: str, configuration: Configuration, layout: Layout) -> dict[str, str]:
    """Operators of a pass and their fingerprints as it was planned, of those that the configuration still has."""
    planned = _definition(layout.scoring_pass(scoring))
    return {name: fingerprint for name, fingerprint in planned.items() if name in configuration.operators}


_planned: dict[Path, dict[str, str]] = {}
"""Passes that this process has planned, and could not write down where it may only read."""


def _definition(path: Path) -> dict[str, str]:
    known = _planned.get(path) if not path.exists() else None
    return known or read_json(path)["operators"]


class Passes:
    """The passes of one graph.

    `fingerprint(operator)` changes when the operator's scores would; `wanted()` gives the scores that the run asks
    for, and is asked only once the graph needs them.
    """

    def __init__(
        self,
        plan: Plan,
        layout: Layout,
        fingerprint: Callable[[str], str],
        wanted: Callable[[], set[Scores]],
        shards_per_job: int,
    ) -> None:
        self._plan = plan
        self._layout = layout
        self._fingerprint = fingerprint
        self._ask = wanted
        self._shards_per_job = shards_per_job
        self._chunks: dict[tuple[str, str], list[Chunk]] = {}

    def operators(self, scoring: str) -> dict[str, str]:
        """Operators of a pass and their fingerprints. Raises FileNotFoundError for a pass that no graph planned."""
        return _definition(self._layout.scoring_pass(scoring))

    def chunks(self, source: str, operator: str) -> list[Chunk]:
        """Passes that score every shard of a source by an operator: those that have, then those that are due."""
        if (source, operator) not in self._chunks:
            wanted = self._wanted[source]
            together = {name for name in wanted if self._device(name) == self._device(operator)}
            self._plan_passes(source, sorted(together) if operator in wanted else [operator])
        return self._chunks[source, operator]

    def is_due(self, source: str, chunk: Chunk) -> bool:
        """Whether a pass over a chunk is still of use: by an operator as it is now no other has scored the shards."""
        if source != POOL and source not in self._plan.generators:
            return False
        planned = self._known(chunk.scoring).items()
        present = self._plan.configuration.operators
        current = [name for name, known in planned if name in present and self._fingerprint(name) == known]
        return any(not set(chunk_shards(chunk.chunk)) <= self.made(source, name).keys() for name in current)

    @cached_property
    def _wanted(self) -> dict[str, set[str]]:
        by_source: dict[str, set[str]] = defaultdict(set)
        for source, operator in self._ask():
            by_source[source].add(operator)
        return by_source

    def _plan_passes(self, source: str, operators: list[str]) -> None:
        """Find or plan the passes of operators of one device."""
        made = {name: self.made(source, name) for name in operators}
        due = {
            shard: tuple(name for name in operators if shard not in made[name]) for shard in self._plan.shards(source)
        }
        chunks = {name: list(dict.fromkeys(made[name].values())) for name in operators}
        for names, shards in self._runs(due):
            planned = Chunk(self._define(names), chunk_name(shards))
            for name in names:
                chunks[name].append(planned)
        for name in operators:
            self._chunks[source, name] = chunks[name]

    def made(self, source: str, operator: str) -> dict[str, Chunk]:
        """Shard → the pass that has scored it by the operator as it is now."""
        present = self._plan.shards(source)
        found: dict[str, Chunk] = {}
        for folder in sorted((self._layout.root / "scores" / source / "passes").glob("*-*")):
            if self._known(folder.name).get(operator) != self._fingerprint(operator):
                continue
            for card in sorted(folder.glob("*.json")):
                scored = self._scored(card)
                if scored.keys() <= set(present):
                    for shard, operators in scored.items():
                        if operator in operators:
                            found.setdefault(shard, Chunk(folder.name, card.stem))
        return {shard: found[shard] for shard in present if shard in found}

    @cached_method
    def _scored(self, card: Path) -> dict[str, list[str]]:
        """Shard → operators that a pass has scored it by; when it ran again, only those that were still in use.

        Scores that were removed since are due again.
        """
        source = card.parents[2].name
        return {
            shard: [
                name
                for name, key in entry["scores"].items()
                if is_scored(self._layout.score_shard(source, name, shard, key))
            ]
            for shard, entry in read_json(card)["shards"].items()
        }

    def _known(self, scoring: str) -> dict[str, str]:
        path: Path = self._layout.scoring_pass(scoring)
        return self.operators(scoring) if path.exists() else {}

    def _runs(self, due: dict[str, tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
        """Neighbouring shards of one file for which the same operators are due, in runs that a job can take."""
        run: list[str] = []
        for shard, names in due.items():
            new_file = bool(run) and ShardName.parse(run[-1]).prefix != ShardName.parse(shard).prefix
            if run and (new_file or names != due[run[-1]] or len(run) == self._shards_per_job):
                yield due[run[-1]], run
                run = []
            if names:
                run.append(shard)
        if run:
            yield due[run[-1]], run

    def _define(self, operators: Iterable[str]) -> str:
        definition = {name: self._fingerprint(name) for name in operators}
        device = self._device(next(iter(definition)))
        scoring = f"{device}-{sha256_json(definition)[:12]}"
        path = self._layout.scoring_pass(scoring)
        if not path.exists():
            _planned[path] = definition
            with where_allowed():
                write_sealed(path, {"operators": definition})
        return scoring

    def _device(self, operator: str) -> str:
        """What a job needs to score by the operator; one that hands shards to a Ray at an address needs no GPU."""
        if self._plan.configuration.scoring.ray_address:
            return "cpu"
        return operator_spec(self._plan.configuration.operators[operator].op).device

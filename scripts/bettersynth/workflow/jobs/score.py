"""Passes of operators over chunks of a source's shards, and the tables that gather what they found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bettersynth.core.names import ShardName
from bettersynth.core.publish import read_json
from bettersynth.core.records import POOL
from bettersynth.workflow.expected import Rows, total
from bettersynth.workflow.jobs.specification import (
    Ask,
    Evidence,
    Files,
    Fingerprinted,
    ImagesOfRecords,
    Kind,
    Read,
    Rule,
    Work,
)
from bettersynth.workflow.needs import Needs, operator_needs
from bettersynth.workflow.passes import CHUNK_PATTERN, Chunk, chunk_shards, pass_operators


class Score(Rule):
    """Score a chunk of a source's shards by several operators: models loaded once, every image decoded once."""

    wildcards = ("source", "scoring", "chunk")
    log_name = "score/{source}/{scoring}/{chunk}"
    says = "Score {chunk} of {source} ({scoring})"
    title = "{chunk} of {source}"
    group = "passes"
    imports = ("bettersynth.operators.batched.scorer",)
    phase = "score"
    heading = "passes cut off"
    unit = "pairs"

    def every(self) -> Iterator[tuple[str, ...]]:
        """Passes that have begun; which will come, only Snakemake's graph knows."""
        logs = self.layout.logs / "score"
        for log in sorted(logs.glob(f"*/{self.kind}-*/*.log")):
            source, scoring, chunk = log.relative_to(logs).with_suffix("").parts
            if re.fullmatch(CHUNK_PATTERN, chunk):  # another is of an earlier try
                yield source, scoring, chunk

    def inputs(self, source: str, scoring: str, chunk: str) -> dict[str, Files]:
        """When a raw file changes, ingest writes all its shards anew.

        Those that are scored as they are stay as they were to Snakemake, so that a pass runs again only when one of
        its shards is another.
        """
        records = {shard: self.layout.records(source, shard) for shard in chunk_shards(chunk)}
        return {"records": [self._known(path, source, Chunk(scoring, chunk), shard) for shard, path in records.items()]}

    def _known(self, path: Path, source: str, chunk: Chunk, shard: str) -> Any:
        scored = source == POOL and self.fingerprints.is_scored(chunk, shard)
        return Fingerprinted(path) if scored else path

    def outputs(self, source: str, scoring: str, chunk: str) -> dict[str, Files]:
        return {"card": self.layout.pass_card(source, scoring, chunk)}

    def parameters(self, source: str, scoring: str, chunk: str) -> dict[str, Any]:
        """Of the pool, the shards' contents; operators and models are in the pass's name."""
        if source != POOL:
            return {}
        shards = self.fingerprints.digest(ShardName.parse(chunk_shards(chunk)[0]).prefix).shards
        return {"records": [shards[shard] for shard in chunk_shards(chunk)]}

    def also_reads(self, source: str, scoring: str, chunk: str) -> Iterator[Read]:
        """Which operators the pass is of, and the images of the records."""
        yield self.layout.scoring_pass(scoring)
        yield from (ImagesOfRecords(self.layout.records(source, shard)) for shard in chunk_shards(chunk))

    def companions(self, output: Path, source: str, scoring: str, chunk: str) -> Iterator[Read]:
        """Which operators the pass is of, and the scores that its card names."""
        yield self.layout.scoring_pass(scoring)
        for shard, entry in read_json(output)["shards"].items():
            for operator, key in entry["scores"].items():
                scores = self.layout.score_shard(source, operator, shard, key)
                yield from (scores, scores.with_suffix(".json"))

    def makes(self, source: str, scoring: str, chunk: str) -> bool:
        return scoring.startswith(f"{self.kind}-")

    def needs(self, source: str, scoring: str, chunk: str) -> Needs:
        return operator_needs(pass_operators(scoring, self.configuration, self.layout), self.configuration)

    def work(self, source: str, scoring: str, chunk: str) -> list[Work]:
        """Every operator scores every shard of the chunk."""
        pairs = total(self.expected.shard(source, shard) for shard in chunk_shards(chunk))
        operators = pass_operators(scoring, self.configuration, self.layout)
        return [
            Work("score", f"{name} of {source}", f"score {self.configuration.operators[name].op}", pairs, self.unit)
            for name in operators
        ]

    def evidence(self, source: str, scoring: str, chunk: str) -> Iterator[Evidence]:
        """None: what gathers the scores tells of each operator's."""
        return iter(())

    def starts(self) -> list[float]:
        """Seconds that past passes of the rule took beside scoring: libraries, models, first batches."""
        found = []
        for card in sorted(self.layout.root.glob(f"scores/*/passes/{self.kind}-*/*.json")):
            source, done = card.relative_to(self.layout.root / "scores").parts[0], read_json(card)
            tables = [
                self.layout.score_shard(source, name, shard, key).with_suffix(".json")
                for shard, entry in done["shards"].items()
                for name, key in entry["scores"].items()
            ]
            if all(table.exists() for table in tables):
                found.append(max(0.0, done["seconds"] - sum(read_json(table)["seconds"] for table in tables)))
        return found

    def is_due(self, source: str, scoring: str, chunk: str) -> bool:
        """For a changed operator, or other sizes, other passes were made."""
        return self.passes.is_due(source, Chunk(scoring, chunk))


class ScoreNeural(Score):
    """A pass of operators that need a GPU."""

    name = "score_neural"
    asks = Ask(8, 16_000, 15, 5)
    kind = Kind.GPU


class ScorePlain(Score):
    """A pass of the other operators."""

    name = "score_plain"
    asks = Ask(4, 8_000, 15, 10)
    kind = Kind.CPU


class ScoresOf(Rule):
    """One table for each operator and source, whichever passes made it."""

    name = "scores_of"
    wildcards = ("source", "operator")
    log_name = "scores/{source}/{operator}"
    says = "Gather the scores of {source} by {operator}"
    title = "{operator} of {source}"
    group = "scores"
    phase = "score"
    heading = "score {operator}"
    unit = "pairs"

    def every(self) -> Iterator[tuple[str, ...]]:
        return iter(sorted(self.plan.wanted_scores(["all"])))

    def inputs(self, source: str, operator: str) -> dict[str, Files]:
        return {"passes": self.passes_over(source, operator)}

    def amount(self, source: str, operator: str) -> Rows:
        return total(self.expected.shard(source, shard) for shard in self.plan.shards(source))

    def work_kind(self, source: str, operator: str) -> str:
        return "scores_of"

    def _shard_cards(self, source: str, operator: str) -> Iterator[Path]:
        """Cards of the shards' scores: those gathered or, while none are, all that passes left."""
        gathered = self.layout.scores_card(source, operator)
        if not gathered.exists():
            yield from sorted(self.layout.score_shard(source, operator, "", "").parent.glob("*.json"))
            return
        for shard, entry in read_json(gathered)["shards"].items():
            yield self.layout.score_shard(source, operator, shard, entry["key"]).with_suffix(".json")

    def evidence(self, source: str, operator: str) -> Iterator[Evidence]:
        """Of scoring, not of gathering: a pass leaves a card for each operator and shard."""
        kind = f"score {self.configuration.operators[operator].op}"
        for card in self._shard_cards(source, operator):
            yield Evidence(kind, f"score {operator}", card, [card.with_suffix(".parquet")])

    def is_current(self, source: str, operator: str) -> bool:
        """Whether the table is there and of what passes by the operator as it is now found in the present records."""
        path, found = self.layout.scores_card(source, operator), self.passes.made(source, operator)
        if not path.exists() or found.keys() != set(self.plan.shards(source)):
            return False
        gathered = read_json(path)["shards"]
        for shard, chunk in found.items():
            scored = read_json(self.layout.pass_card(source, *chunk))["shards"][shard]["scores"][operator]
            in_table = shard in gathered and gathered[shard]["key"] == scored
            if not in_table or (source == POOL and not self.fingerprints.is_scored(chunk, shard)):
                return False
        return True

    def passes_over(self, source: str, operator: str) -> list[Path]:
        """Cards of the passes that score a source by an operator."""
        return [self.layout.pass_card(source, *chunk) for chunk in self.passes.chunks(source, operator)]

    def outputs(self, source: str, operator: str) -> dict[str, Files]:
        return {"scores": self.layout.scores(source, operator), "card": self.layout.scores_card(source, operator)}

    def parameters(self, source: str, operator: str) -> dict[str, Any]:
        """Of an id in two files the first one's score counts, and Snakemake does not see an order change."""
        return {"files": [file.name for file in self.configuration.pool.files] if source == POOL else []}

"""Generators make new sources: captions written again, images drawn again, captions cleaned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bettersynth.configuration.verb import Generator
from bettersynth.core import versions
from bettersynth.workflow.expected import Rows
from bettersynth.workflow.jobs.dataset import OfRows
from bettersynth.workflow.jobs.specification import Ask, Context, Files, ImagesOfDataset, ImagesOfRecords, Kind, Read
from bettersynth.workflow.needs import Needs, generator_needs


class Generate(OfRows):
    """Make one shard of a source from the rows that its generator is asked to rewrite; each generator has a rule."""

    wildcards = ("source", "shard")
    log_name = "generate/{source}/{shard}"
    title = "{shard}"
    group = "sources"
    phase = "generate"
    heading = "{rule} {source}"
    unit = "rows"

    def __init__(self, context: Context, verb: type[Generator]) -> None:
        super().__init__(context)
        self.name, self.says = verb.name, verb.says  # type: ignore[misc]
        self.kind = Kind.GPU if verb.on_gpu else Kind.CPU  # type: ignore[misc]
        self.imports = ("torch", "transformers") if verb.on_gpu else ()  # type: ignore[misc]
        self.asks = Ask(8, 32_000, 720) if verb.on_gpu else None  # type: ignore[misc]

    @property
    def sources(self) -> list[str]:
        """The sources that the rule's verb makes."""
        return [source for source, verb in self.plan.generators.items() if verb.name == self.name]

    @property
    def pattern(self) -> str:
        """What the names of the rule's sources match; nothing when there are none."""
        return "|".join(self.sources) or "(?!)"

    def every(self) -> Iterator[tuple[str, ...]]:
        return ((source, shard) for source in self.sources for shard in self.plan.shards(source))

    def inputs(self, source: str, shard: str) -> dict[str, Files]:
        """Rows to rewrite, and the records of the sources that they name."""
        parent = self.plan.dataset(source).from_
        return {
            "rows": self.layout.rows(parent),
            "index": self.layout.index,
            "records": self.records_of(parent),
        }

    def outputs(self, source: str, shard: str) -> dict[str, Files]:
        return {
            "records": self.layout.records(source, shard),
            "failed": self.layout.failed(source, shard),
            "card": self.layout.records_card(source, shard),
        }

    def parameters(self, source: str, shard: str) -> dict[str, Any]:
        """What decides a generated shard, apart from the rows asked for."""
        verb, models = self.plan.generators[source], self.fingerprints.model
        facts: dict[str, Any] = {
            "parameters": verb.model_dump_json(),
            "version": versions.GENERATE,
            **self.fingerprints.reading,
            **verb.also_decides(),
        }
        if entry := verb.entry(self.configuration):
            facts["engine"] = entry.model_dump_json(exclude={"model", "batch", "workers"})
            facts["model"] = models(entry.model)
        if judge := verb.judge(self.configuration):
            operator = self.configuration.operators[judge]
            facts["scored_by"] = [operator.model_dump_json(exclude={"model"}), models(operator.model)]
        return facts

    def also_reads(self, source: str, shard: str) -> Iterator[Read]:
        if self.plan.generators[source].reads_images:
            yield ImagesOfDataset(self.plan.dataset(source).from_)

    def companions(self, output: Path, source: str, shard: str) -> Iterator[Read]:
        """With the card, the records and their images."""
        if output == self.layout.records_card(source, shard):
            records = self.layout.records(source, shard)
            yield from (records, self.layout.failed(source, shard), ImagesOfRecords(records))

    def makes(self, source: str, shard: str) -> bool:
        return source in self.sources

    def amount(self, source: str, shard: str) -> Rows:
        return self.expected.shard(source, shard)

    def what(self, source: str, shard: str) -> str:
        return f"{self.name}: {source}"

    def work_kind(self, source: str, shard: str) -> str:
        """Captions by one captioner are not written as fast as by another."""
        return self.plan.generators[source].work()

    def needs(self, source: str, shard: str) -> Needs:
        return generator_needs(source, self.configuration)

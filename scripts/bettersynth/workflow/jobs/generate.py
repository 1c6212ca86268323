"""Generators make new sources: captions written again, images drawn again, captions cleaned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bettersynth.configuration.generators import BestBy, Captioner, Redrawer
from bettersynth.core import versions
from bettersynth.workflow.expected import Rows
from bettersynth.workflow.jobs.dataset import OfRows
from bettersynth.workflow.jobs.specification import Files, Kind
from bettersynth.workflow.needs import Needs, generator_needs


class Generate(OfRows):
    """Make one shard of a source from the rows that its generator is asked to rewrite."""

    wildcards = ("source", "shard")
    kind = Kind.GPU
    log_name = "generate/{source}/{shard}"
    title = "{shard}"
    group = "sources"
    phase = "generate"
    heading = "{rule} {source}"
    unit = "rows"

    @property
    def sources(self) -> list[str]:
        """The sources that the rule's verb makes."""
        return [source for source, node in self.plan.generators.items() if node.verb == self.name]

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
        node, models = self.plan.dataset(source), self.fingerprints.model
        facts: dict[str, Any] = {
            "parameters": node.parameters.model_dump_json(),
            "version": versions.GENERATE,
            **self.fingerprints.reading,
        }
        if node.clean:
            facts["words"] = versions.WORDS
        entry: Captioner | Redrawer | None = None
        if node.recaption:
            entry = self.configuration.captioners[node.recaption.captioner]
        if node.redraw:
            entry = self.configuration.redrawers[node.redraw.redrawer]
        if entry is not None:
            facts["engine"] = entry.model_dump_json(exclude={"model", "batch", "workers"})
            facts["model"] = models(entry.model)
        scored_by = entry.keep.operator if isinstance(entry, Captioner) and isinstance(entry.keep, BestBy) else None
        if node.clean and node.clean.language:
            scored_by = node.clean.language.operator
        if scored_by is not None:
            operator = self.configuration.operators[scored_by]
            facts["scored_by"] = [operator.model_dump_json(exclude={"model"}), models(operator.model)]
        return facts

    def amount(self, source: str, shard: str) -> Rows:
        return self.expected.shard(source, shard)

    def what(self, source: str, shard: str) -> str:
        return f"{self.name}: {source}"

    def work_kind(self, source: str, shard: str) -> str:
        """Captions by one captioner are not written as fast as by another."""
        node = self.plan.dataset(source)
        if node.recaption:
            return f"recaption {node.recaption.captioner}"
        return f"redraw {node.redraw.redrawer}" if node.redraw else "clean"

    def needs(self, source: str, shard: str) -> Needs:
        return generator_needs(source, self.configuration)


class Recaption(Generate):
    """Captions by a captioner."""

    name = "recaption"
    says = "Write captions for {shard}"


class Redraw(Generate):
    """Images by a redrawer."""

    name = "redraw"
    says = "Draw images for {shard}"


class Clean(Generate):
    """Captions mended, or dropped."""

    name = "clean"
    kind = Kind.CPU
    says = "Clean the captions of {shard}"

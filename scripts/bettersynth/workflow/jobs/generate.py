"""Generators make new sources: captions written again, images drawn again, captions cleaned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
        return self.graph.generate(source)

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

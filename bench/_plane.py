"""Times and memory of the steps of the data plane, each in a process of its own."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from bench import ROOT, _drawn
from bettersynth.configuration import load
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import sha256_file, sha256_json
from bettersynth.core.records import text_of
from bettersynth.core.tables import read_table
from bettersynth.pool.rows import asked_rows, read_rows, records_sha256
from bettersynth.workflow.jobs import Jobs
from bettersynth.workflow.passes import Chunk, chunk_shards
from bettersynth.workflow.plan import Plan

logger = logging.getLogger(__name__)


class Step(NamedTuple):
    """A step that was taken: its kind, such as `filter`, its name, seconds, CPU seconds, and most memory in MB.

    Linux counts into the memory what the process that started the step had then, some 300 MB, so less is not seen.
    """

    kind: str
    name: str
    seconds: float
    cpu_seconds: float
    peak_mb: float


class DataPlane:
    """A configuration's results in the present folder, made step by step; what needs a model is drawn."""

    def __init__(self, config: Path) -> None:
        self.config = config.resolve()
        self.configuration: Configuration = load(config)
        self.layout = Layout(Path("results") / str(self.configuration.name))
        self.plan = Plan(self.configuration)
        self.steps: list[Step] = []

    # --- measured steps --------------------------------------------------------------------------

    def step(self, kind: str, what: str, *names: str) -> None:
        """Do `what` (see `_steps`) in a fresh process and keep its seconds and peak memory."""
        code = "import sys; from bench._steps import run_step; run_step(*sys.argv[1:])"
        self.timed(kind, names[-1] if names else what, [sys.executable, "-c", code, str(self.config), what, *names])

    def timed(self, kind: str, name: str, command: list[str]) -> None:
        """Run a command as a step."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
        started = time.monotonic()
        process = subprocess.Popen(command, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{command} failed with {process.returncode}; see the messages above")
        cpu_seconds, peak_mb = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6
        done = Step(kind, name, time.monotonic() - started, cpu_seconds, peak_mb)
        logger.info("%-12s %-32s %6.2f s, %6.2f s of CPU, %6.0f MB", *done)
        self.steps.append(done)

    def ingest(self) -> None:
        """Read the raw files whose digests say so."""
        for file in self.configuration.pool.files:
            if not self.layout.file_ledger(file.name).exists():
                self.step("ingest", "ingest", file.name)
        self.step("pool_index", "index")

    def scores(self, source: str, operators: Iterable[str] | None = None) -> None:
        """Draw the scores of a source that some dataset (or the report) reads, and gather them."""
        wanted = sorted(operators or (name for made, name in self.plan.wanted_scores(["all"]) if made == source))
        jobs = Jobs(self.configuration, self.layout, self.plan)
        for operator in wanted:
            cards = [Chunk(path.parent.name, path.stem) for path in jobs.scores_of.passes_over(source, operator)]
            self._draw(source, operator, cards, jobs)
            self.step("scores_of", "gather", source, operator)

    def datasets(self, names: Iterable[str]) -> None:
        """Make these datasets, their ancestors first, and the sources of the generators among them."""
        for name in dict.fromkeys(step for dataset in names for step in self.plan.lineage(dataset)):
            node = self.plan.dataset(name)
            if node.verb.name == "clean":
                for shard in self.plan.shards(name):
                    self.step("clean", "generate", shard)
            elif name in self.plan.generators:
                self._draw_source(name)
            self.step(node.verb.name, "dataset", name)
            if name in self.plan.generators:
                self.scores(name)

    def trainsets(self, recipes: Iterable[str]) -> None:
        """Write the training files of the recipes."""
        for recipe in recipes:
            self.step("trainset", "trainset", recipe)

    def figures(self) -> dict[str, float]:
        """For each kind of step their number, the seconds of the slowest, and the most memory."""
        kinds: dict[str, list[Step]] = defaultdict(list)
        for step in self.steps:
            kinds[step.kind].append(step)
        figures: dict[str, float] = {}
        for kind, steps in kinds.items():
            figures |= {
                f"{kind}_steps": len(steps),
                f"{kind}_slowest_seconds": round(max(step.seconds for step in steps), 2),
                f"{kind}_slowest_cpu_seconds": round(max(step.cpu_seconds for step in steps), 2),
                f"{kind}_peak_mb": round(max(step.peak_mb for step in steps)),
            }
        figures["all_steps"] = len(self.steps)
        figures["all_seconds"] = round(sum(step.seconds for step in self.steps))
        figures["all_cpu_seconds"] = round(sum(step.cpu_seconds for step in self.steps))
        figures["all_peak_mb"] = round(max(step.peak_mb for step in self.steps))
        return figures

    # --- drawn instead of made by models ---------------------------------------------------------

    def _draw(self, source: str, operator: str, chunks: list[Chunk], jobs: Jobs) -> None:
        """What passes leave: each shard's scores and card, and the cards of the passes. Not synced to the disk."""
        records = records_sha256(source, self.layout, self.plan)
        fingerprint = jobs.fingerprints.operator(operator)
        for shard in self.plan.shards(source):
            path = self.layout.score_shard(source, operator, shard, _key(fingerprint, records[shard]))
            if path.exists():
                continue
            ids = read_table(self.layout.records(source, shard), ["id"])["id"].to_pylist()
            _write(path, _drawn.draw_scores(source, operator, ids, self.plan))
            facts = {"records": len(ids), "unreadable": {}, "inputs": {}, "parameters": {}, "device": "drawn"}
            _write_card(path.with_suffix(".json"), facts | {"seconds": 0, "sha256": sha256_file(path)})
        for scoring, chunk in chunks:
            path = self.layout.pass_card(source, scoring, chunk)
            if path.exists():
                continue
            fingerprints = jobs.passes.operators(scoring)
            shards = {
                shard: {
                    "records": records[shard],
                    "scores": {name: _key(fingerprints[name], records[shard]) for name in fingerprints},
                }
                for shard in chunk_shards(chunk)
            }
            _write_card(path, {"source": source, "operators": fingerprints, "shards": shards})

    def _draw_source(self, name: str) -> None:
        """New captions, or new images, for every row of the parent."""
        parent = self.plan.dataset(name).from_
        rows = read_rows(parent, self.layout)
        made_of = {parent: sha256_file(self.layout.rows(parent))}
        redrawn = self.plan.dataset(name).verb.name == "redraw"
        shards = self.plan.shards(name)
        for shard in shards:
            ids = asked_rows(rows, shard, len(shards))["id"].to_pylist()
            images = [f"images/{record_id[:5]}/{record_id}.jpg" for record_id in ids]
            texts = [text_of(caption) for caption in _drawn.captions(name, ids)]
            if redrawn:
                _drawn.link_images(self.layout.source_images(name), images)
            roots = [name if redrawn else "pool"] * len(ids)
            path = self.layout.records(name, shard)
            table = pa.table({"id": ids, "text": texts, "images": [[image] for image in images], "image_root": roots})
            _write(path, table)
            _write(self.layout.failed(name, shard), pa.table({key: pa.array([], pa.string()) for key in FAILED}))
            card = {"asked": len(ids), "made": len(ids), "rows": len(ids), "sha256": sha256_file(path)}
            card |= {"inputs": made_of, "failed": {}, "device": "drawn", "seconds": 0}
            _write_card(self.layout.records_card(name, shard), card)


FAILED = ("id", "source", "reason")


def _key(fingerprint: str, records_sha256: str) -> str:
    return sha256_json([fingerprint, records_sha256])[:16]


def _write(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")


def _write_card(path: Path, facts: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(facts))

"""Scoring on a Ray cluster, through Data-Juicer's Ray dataset: the job's side.

Runs of shards go there as blocks of samples in Data-Juicer's form. On the cluster one filter (`ray_filter.py`), an
actor for each GPU, fills in the stats of every operator, and blocks come back in order while others are under way. An
actor scores each shard by itself and by the code that a job runs without Ray.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from bettersynth.configuration.operators import operator_spec
from bettersynth.configuration.types import Configuration
from bettersynth.core.own import scratch_folder
from bettersynth.core.progress import progress
from bettersynth.core.records import Record
from bettersynth.operators.batched.errors import RecordError
from bettersynth.operators.ray.columns import FACTS, SHARD, STATS
from bettersynth.pool.images import ImageProblem, ImageRoots
from bettersynth.runtime import patches
from bettersynth.runtime.patches.data_juicer import import_data_juicer

if TYPE_CHECKING:
    from bettersynth.operators.batched.scorer import OperatorScores

SCRIPTS = Path(__file__).resolve().parents[3]


CPU_ACTOR = 4
"""Most cores of an actor without a GPU."""
GPU_ACTOR = 16
"""Most cores of an actor with a GPU: they decode for it."""
BLOCK = 16
"""Most shards that an actor scores without a pause between them."""
STORE = 500_000_000
"""Bytes for blocks on their way, in a Ray of the job's own."""

PATIENCE = {"RAY_gcs_server_port_wait_time_s": "1", "RAY_py_gcs_connect_timeout_s": "10"}
"""So that it takes seconds, not a quarter of an hour, to learn that no Ray is at an address."""

Shard = tuple[Any, Sequence[Record], Iterable[str]]
Scored = tuple[Any, "dict[str, OperatorScores]"]


class RayError(RuntimeError):
    """No Ray to score on, or one that cannot; the message says what to do."""


class Cluster(NamedTuple):
    """What the nodes of a Ray have: `(cores, GPUs)` of each."""

    nodes: list[tuple[int, int]]

    @property
    def has_gpu(self) -> bool:
        """Whether actors get a GPU each."""
        return any(gpus for _, gpus in self.nodes)

    @property
    def cpus_of_an_actor(self) -> int:
        """Cores that an actor asks for, so that a node's actors share them."""
        if self.has_gpu:
            return max(1, min(GPU_ACTOR, *(cpus // gpus for cpus, gpus in self.nodes if gpus)))
        return max(1, min(CPU_ACTOR, *(cpus for cpus, _ in self.nodes if cpus)))

    @property
    def actors(self) -> int:
        """As many as there is room for."""
        if self.has_gpu:
            return sum(gpus for _, gpus in self.nodes)
        return max(1, sum(cpus // self.cpus_of_an_actor for cpus, _ in self.nodes))


class RayScorer:
    """The operators of a pass, to score on Ray; stands where a `BatchScorer` does."""

    def __init__(self, names: Iterable[str], configuration: Configuration) -> None:
        self.operators = frozenset(names)
        self._configuration = configuration

    def score_shards(self, shards: Iterable[Shard], paths: ImageRoots, total: int) -> Iterator[Scored]:
        """As `BatchScorer.score_shards`. Raises RayError when there is no Ray at `scoring.ray_address`."""
        with _connected(self._configuration.scoring.ray_address, self._wants_gpu) as cluster:
            scored = self._scored(shards, paths, cluster)
            yield from progress(scored, total, "scoring pairs on Ray", size=_size)

    def _scored(self, shards: Iterable[Shard], paths: ImageRoots, cluster: Cluster) -> Iterator[Scored]:
        with scratch_folder() as cache:
            patches.prepare(cache, self._configuration.pool.max_pixels)
            import_data_juicer()
            from bettersynth.operators.batched.scorer import OperatorScores

        for due, alike in groupby(shards, key=lambda shard: frozenset(shard[2])):
            some = [(key, records) for key, records, _ in alike]
            tables = [
                _samples(number, key, records, due, paths) for number, (key, records) in enumerate(some) if records
            ]
            found = self._on_ray(tables, due, cluster)
            for key, records in some:
                facts, rows = next(found) if records else ({}, [])
                if "error" in facts:
                    raise RayError(facts["error"])
                if "failure" in facts:
                    operators, record, reason = facts["failure"]
                    raise RecordError(operators, record, reason, key)
                yield (
                    key,
                    {
                        name: OperatorScores(
                            [{stat: row[f"{name}.{stat}"] for stat in self._stats(name)} for row in rows],
                            **facts.get(name, {"seconds": {"loading": 0.0, "preparing": 0.0}}),
                        )
                        for name in sorted(due)
                    },
                )

    @property
    def _wants_gpu(self) -> bool:
        """Whether a GPU, where there is one, is of use to any of the operators."""
        return any(operator_spec(self._configuration.operators[name].op).device == "gpu" for name in self.operators)

    def _stats(self, name: str) -> Iterable[str]:
        return operator_spec(self._configuration.operators[name].op).stats

    def _on_ray(
        self, tables: list[pa.Table], due: frozenset[str], cluster: Cluster
    ) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Facts and stats of each shard, in order."""
        if not tables:
            return
        import ray.data
        from data_juicer.core.data.ray_dataset import RayDataset

        from bettersynth.operators.ray.filter import ScoringFilter

        size = min(BLOCK, -(-len(tables) // (2 * cluster.actors)))
        blocks = [pa.concat_tables(tables[first : first + size]) for first in range(0, len(tables), size)]
        operator = ScoringFilter(
            self._local(cluster),
            sorted(due),
            str(Path.cwd()),
            num_gpus=int(cluster.has_gpu),
            num_cpus=cluster.cpus_of_an_actor,
            num_proc=min(cluster.actors, len(blocks)),
        )
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        context.target_max_block_size = None  # or blocks of large stats would be cut inside of a shard
        data = RayDataset(ray.data.from_arrow(blocks), auto_op_parallelism=False)
        data.process([operator], stats_only=True)
        for block in data.data.iter_batches(batch_size=None, batch_format="pyarrow"):
            rows = block.select([SHARD, FACTS, STATS]).to_pylist()
            for _, shard in groupby(rows, key=lambda row: row[SHARD]):
                first, *others = shard
                yield json.loads(first[FACTS]), [row[STATS] for row in (first, *others)]

    def _local(self, cluster: Cluster) -> str:
        """The configuration of what an actor does, as JSON."""
        scoring = self._configuration.scoring.model_copy(update={"engine": "local", "ray_address": None})
        if cluster.has_gpu and scoring.workers is None:
            scoring = scoring.model_copy(update={"workers": cluster.cpus_of_an_actor})
        return self._configuration.model_copy(update={"scoring": scoring}).model_dump_json(by_alias=True)


def _size(scored: Scored) -> int:
    return max(len(scores.stats) for scores in scored[1].values())


def _samples(number: int, key: Any, records: Sequence[Record], due: frozenset[str], paths: ImageRoots) -> pa.Table:
    """A shard's records as Data-Juicer's samples, whose `images` are files."""
    images = []
    for record in records:
        try:
            images.append([str(paths.path(record.image_root, image)) for image in record.images])
        except ImageProblem as problem:
            reason = f"{type(problem).__name__}: {problem}"
            raise RecordError(", ".join(sorted(due)), record.id, reason, key) from None
    return pa.table(
        {
            SHARD: [number] * len(records),
            "id": [record.id for record in records],
            "text": [record.text for record in records],
            "images": pa.array(images, pa.list_(pa.string())),
            STATS: [{} for _ in records],
            FACTS: [""] * len(records),
        }
    )


@contextmanager
def _connected(address: str | None, wants_gpu: bool) -> Iterator[Cluster]:
    """A Ray of the job's own, or the one at `address`; without its GPUs where none is wanted."""
    for patience, amount in PATIENCE.items():
        os.environ.setdefault(patience, amount)
    if address is None:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # or Ray writes one into the home folder
    if "RAY_AUTH_TOKEN" in os.environ:  # which Ray shows a `host:port` only when it is told to
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray  # it reads these once

    environment = {**patches.ENVIRONMENT, "PYTHONPATH": str(SCRIPTS)}
    options: dict[str, Any] = {
        "runtime_env": {"env_vars": environment, "worker_process_setup_hook": f"{__name__}.set_up_worker"},
        "logging_level": logging.WARNING,
    }
    with ExitStack() as stack:
        stack.callback(ray.shutdown)
        if address is None:
            # paths of Ray's sockets have to be short, which a site's TMPDIR need not be
            options["_temp_dir"] = str(stack.enter_context(scratch_folder("/tmp")))
            options |= {"num_cpus": len(os.sched_getaffinity(0)), "object_store_memory": STORE}
            options |= {"include_dashboard": False}
        try:
            ray.init(address or "local", **options)  # without an address Ray would join one that it finds
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise RayError(
                f"no Ray at scoring.ray_address {address!r}: {error}\n"
                "Start one (`ray start --head` on one node, `ray start --address=…` on the others), or leave "
                "`ray_address` out: the job then starts one of its own."
            ) from error
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        yield Cluster([(int(node.get("CPU", 0)), int(node.get("GPU", 0)) if wants_gpu else 0) for node in nodes])


_until_the_end = ExitStack()


def set_up_worker() -> None:
    """What a process on the cluster does before anything else: see `runtime.patches`."""
    patches.prepare(_until_the_end.enter_context(scratch_folder()))

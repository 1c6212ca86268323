"""What Snakemake asks while it builds the graph: fingerprints of raw files and of models.

A rule that costs a GPU reads its big inputs as `ancient` and carries these fingerprints as parameters, so it runs
again when contents change and never because a file was touched, copied or moved.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from bettersynth.configuration.load import ConfigurationError, recipe_training
from bettersynth.configuration.types import Captioner, Configuration, Redrawer
from bettersynth.digests import FileDigest, shard_digests
from bettersynth.layout import Layout
from bettersynth.operators.catalogue import CATALOGUE
from bettersynth.publish import read_json, sha256_bytes, sha256_json, write_json
from bettersynth.records import POOL

SAMPLE_BYTES = 1 << 20


def model_identity(path: str | Path) -> str | None:
    """A quick fingerprint of a model folder (or file), or None when it is not there.

    Covers names, sizes, and the first and last MiB of every file: enough to tell models apart while the graph is
    built. Jobs record the full sha256 of what they loaded.
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    counted = [file for file in files if file.suffix != ".md" and not file.name.startswith(".")]
    if not counted:
        return None
    return sha256_json([[file.relative_to(path).as_posix(), *_ends(file)] for file in counted])


def _ends(path: Path) -> list[Any]:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(SAMPLE_BYTES)
        file.seek(max(size - SAMPLE_BYTES, 0))
        return [size, sha256_bytes(head + file.read(SAMPLE_BYTES))]


class Graph:
    """Parameters of the rules, from the configuration and from fingerprints of its inputs."""

    def __init__(self, configuration: Configuration, layout: Layout) -> None:
        self.configuration = configuration
        self.layout = layout
        self._digests: dict[str, FileDigest] = {}

    def check_inputs(self) -> None:
        """Refuse to go on when a raw file is missing: ConfigurationError names each, and what to do."""
        missing = [file for file in self.configuration.pool.files if not Path(file.path).exists()]
        if missing:
            raise ConfigurationError(
                f"results/{self.configuration.name}",
                [
                    f"pool.files.{file.name}: {file.path}: no such file; "
                    "correct its `path`, or render the miniature's: make world"
                    for file in missing
                ],
            )

    # pool
    def digest(self, file: str) -> FileDigest:
        """Fingerprints of a raw file and of each of its shards."""
        if file not in self._digests:
            entry = next(entry for entry in self.configuration.pool.files if entry.name == file)
            self._digests[file] = shard_digests(entry, self.layout.digests)
        return self._digests[file]

    def ingest(self, file: str) -> dict[str, Any]:
        """What decides whether a raw file is read again."""
        pool = self.configuration.pool
        entry = next(entry for entry in pool.files if entry.name == file)
        return {
            "digest": self.digest(file).file,
            "shards": entry.shards,
            "max_pixels": pool.max_pixels,
            "decode": pool.decode,
        }

    def is_ingested(self, shard: str) -> bool:
        """Whether the pool's shard on disk was made from what the raw file says now."""
        return self._ingested.get(shard) == self.digest(shard.rpartition("-")[0]).shards[shard]

    @cached_property
    def _ingested(self) -> dict[str, str]:
        """Digest of every shard of the pool when it was last written."""
        ledgers = [self.layout.file_ledger(file.name) for file in self.configuration.pool.files]
        shards = [read_json(ledger)["shards"] for ledger in ledgers if ledger.exists()]
        return {name: facts["digest"] for file in shards for name, facts in file.items()}

    # models
    @cached_property
    def _identities(self) -> dict[str, str | None]:
        """Identity of every model; one that is not on this machine keeps the identity it last had."""
        store = self.layout.root / "models.json"
        known = read_json(store) if store.exists() else {}
        found = {name: model_identity(model.path) for name, model in self.configuration.models.items()}
        merged = {name: identity or known.get(name) for name, identity in found.items()}
        current = {name: identity for name, identity in merged.items() if identity}
        if current and current != known:
            write_json(store, current)
        return merged

    def model(self, name: str | None) -> str | None:
        """Identity of a model of the configuration."""
        return self._identities[name] if name else None

    # scores and generators
    def score(self, source: str, operator: str, shard: str) -> dict[str, Any]:
        """What decides a score shard: the operator, its model and, of the pool, the shard's contents."""
        definition = self.configuration.operators[operator]
        facts = {
            "op": definition.op,
            "parameters": json.dumps(definition.parameters, sort_keys=True),
            "model": self.model(definition.model),
            "version": CATALOGUE[definition.op].version,
        }
        if source == POOL:
            facts["records"] = self.digest(shard.rpartition("-")[0]).shards[shard]
        return facts

    def generate(self, source: str) -> dict[str, Any]:
        """What decides a generated shard, apart from the rows asked for."""
        node = self.configuration.datasets[source]
        facts: dict[str, Any] = {"parameters": node.parameters.model_dump_json()}
        entry: Captioner | Redrawer | None = None
        if node.recaption:
            entry = self.configuration.captioners[node.recaption.captioner]
        if node.redraw:
            entry = self.configuration.redrawers[node.redraw.redrawer]
        if entry is not None:
            facts["engine"] = entry.model_dump_json(exclude={"model", "batch"})
            facts["model"] = self.model(entry.model)
        return facts

    # datasets
    def dataset(self, name: str) -> str:
        """The dataset's definition."""
        return self.configuration.datasets[name].model_dump_json(exclude_none=True, by_alias=True)

    # training and evaluation
    def train(self, recipe: str, stage: str) -> dict[str, Any]:
        """What decides a training stage, apart from its data."""
        training = recipe_training(self.configuration, recipe)
        architecture = training.architecture
        fit = {"device_batch", "workers", "save_steps"}
        facts: dict[str, Any] = {
            "architecture": architecture.model_dump_json(
                exclude={"language_model", "vision_tower", "vision_tower_aux"}
            ),
            "language_model": self.model(architecture.language_model),
            "vision_tower": self.model(architecture.vision_tower),
            "vision_tower_aux": self.model(architecture.vision_tower_aux),
            "stage": (training.finetune if stage == "finetune" else training.pretrain).model_dump_json(exclude=fit),
        }
        if stage == "probe":
            facts["steps"] = training.probe.steps
        return facts

    def evaluate(self, benchmark: str) -> str:
        """What decides the answers to a benchmark, apart from the model."""
        evaluation = self.configuration.evaluation
        if evaluation is None:
            raise ValueError("the configuration has no `evaluation` section")
        return evaluation.precision + getattr(evaluation, benchmark).model_dump_json()

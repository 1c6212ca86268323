"""Fingerprints of what nothing in the graph makes: raw files, models and other inputs; Snakemake asks for them.

A rule that costs a GPU reads its big inputs as `ancient` and carries these fingerprints as parameters, so it runs
again when contents change and never because a file was touched, copied or moved.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from bettersynth.configuration.instructions import instruction_sets
from bettersynth.configuration.operators import operator_spec
from bettersynth.configuration.pool import USUAL
from bettersynth.configuration.reading import ConfigurationError
from bettersynth.configuration.types import Configuration
from bettersynth.core import versions
from bettersynth.core.cached import cached_method
from bettersynth.core.layout import Layout
from bettersynth.core.names import ShardName
from bettersynth.core.publish import (
    counts_in_folder,
    files_below,
    read_json,
    sha256_bytes,
    sha256_file,
    sha256_json,
    write_json,
)
from bettersynth.core.raw import other_kind
from bettersynth.core.records import POOL
from bettersynth.workflow.digests import FileDigest, is_remembered, shard_digests
from bettersynth.workflow.passes import Chunk

SAMPLE_BYTES = 1 << 20


def model_identity(path: str | Path) -> str | None:
    """A quick fingerprint of a model folder (or file), or None when it is not there.

    Covers names, sizes, and the first and last MiB of every file: enough to tell models apart while the graph is
    built. Jobs record the full sha256 of what they loaded.
    """
    path = Path(path)
    files = {".": path} if path.is_file() else files_below(path)
    counted = [[name, *_ends(file)] for name, file in files.items() if path.is_file() or counts_in_folder(name)]
    return sha256_json(counted) if counted else None


def _remedy(path: str) -> str:
    if Path("data/miniature") in (Path(path), *Path(path).parents):
        return "render the miniature's pairs: make world"
    return "put it there or correct the path"


def _ends(path: Path) -> list[Any]:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(SAMPLE_BYTES)
        file.seek(max(size - SAMPLE_BYTES, 0))
        return [size, sha256_bytes(head + file.read(SAMPLE_BYTES))]


class Fingerprints:
    """Fingerprints of a configuration's inputs: raw files, models and other files; those not here as they last were."""

    def __init__(self, configuration: Configuration, layout: Layout) -> None:
        self.configuration = configuration
        self.layout = layout
        self._digests: dict[str, FileDigest] = {}
        self._ledgers: dict[str, dict[str, Any]] = {}
        self._contents: dict[str, list[Any]] | None = None

    def check_inputs(self, config_file: str) -> None:
        """Refuse to go on when raw files are missing: ConfigurationError names each, and what to do.

        Where a run was carried to in a bundle, only what its next jobs read is there.
        """
        pool = self.configuration.pool
        if self.layout.is_carried and all(is_remembered(file, self.layout.digests) for file in pool.files):
            return
        named = {f"pool.files.{file.name}": file.path for file in pool.files} | {"pool.images": pool.images}
        missing = {key: path for key, path in named.items() if not Path(path).exists()}
        if missing:
            raise ConfigurationError(
                config_file,
                [f"{key}: {path}: not there; {_remedy(path)}" for key, path in missing.items()],
            )
        if problems := [f"{key}: {kind}" for key, path in self._raw_files() if (kind := other_kind(path))]:
            raise ConfigurationError(config_file, problems)

    def _raw_files(self) -> Iterator[tuple[str, str]]:
        """What is read as records, and the key that names it: pool, questions to restore, instructions."""
        pool = self.configuration.pool
        yield from ((f"pool.files.{file.name}", file.path) for file in pool.files)
        yield from (("pool.restore", path) for path in pool.restore)
        for stage in instruction_sets(self.configuration).values() if self.configuration.training else ():
            yield "training.finetune.instructions", stage.instructions

    @property
    def reading(self) -> dict[str, Any]:
        """How images are read, where that is not as usual."""
        grey = self.configuration.pool.deep_grey
        return {} if grey == USUAL.deep_grey else {"deep_grey": grey}

    # files that nothing in the graph makes
    def contents(self, *paths: str) -> list[str | None]:
        """Digests of input files, remembered by path, size and time of change; None for one that is missing.

        A rule that carries them as parameters reads the files as `ancient`: it runs again when contents change, not
        when a file is touched, copied or moved.
        """
        return [self._content(Path(path)) for path in paths]

    def _content(self, path: Path) -> str | None:
        store = self.layout.inputs
        if self._contents is None:
            self._contents = read_json(store) if store.exists() else {}
        known = self._contents.get(str(path))
        if not path.exists():
            return str(known[2]) if known else None
        stat = path.stat()
        if known is None or known[:2] != [stat.st_size, stat.st_mtime_ns]:
            known = [stat.st_size, stat.st_mtime_ns, sha256_file(path)]
            self._contents[str(path)] = known
            write_json(store, self._contents)
        return str(known[2])

    # pool
    def digest(self, file: str) -> FileDigest:
        """Fingerprints of a raw file and of each of its shards."""
        if file not in self._digests:
            entry = next(entry for entry in self.configuration.pool.files if entry.name == file)
            self._digests[file] = shard_digests(entry, self.layout.digests)
        return self._digests[file]

    @property
    def checks(self) -> dict[str, Any]:
        """What decides, beside the raw file, which records are quarantined."""
        trains = {"trains": self.contents(*self.configuration.pool.restore)} if self.configuration.trains else {}
        return {**self.configuration.pool.checks, "version": versions.INGEST, **trains}

    def is_scored(self, chunk: Chunk, shard: str) -> bool:
        """Whether the pool's shard, as the raw file and the checks make it now, is the one that the pass scored."""
        file = ShardName.parse(shard).prefix
        ledger = self._ledger(file)
        made = ledger.get("shards", {}).get(shard)
        return (
            made is not None
            and made["digest"] == self.digest(file).shards[shard]
            and {key: ledger["parameters"].get(key) for key in self.checks} == self.checks
            and self._scored_records(chunk).get(shard) == made["sha256"]
        )

    @cached_method
    def _scored_records(self, chunk: Chunk) -> dict[str, str]:
        """Shard → sha256 of the records that the pass over the pool's chunk scored."""
        card = self.layout.pass_card(POOL, *chunk)
        return {shard: entry["records"] for shard, entry in read_json(card)["shards"].items()} if card.exists() else {}

    def _ledger(self, file: str) -> dict[str, Any]:
        if file not in self._ledgers:
            path = self.layout.file_ledger(file)
            self._ledgers[file] = read_json(path) if path.exists() else {}
        return self._ledgers[file]

    # models
    @cached_property
    def _identities(self) -> dict[str, str | None]:
        """Identity of every model; one whose folder is not on this machine keeps the identity it last had there."""
        store = self.layout.models
        known = read_json(store) if store.exists() else {}
        current = {}
        for name, model in self.configuration.models.items():
            last = known.get(name, [None, None])
            identity = model_identity(model.path) or (last[1] if last[0] == model.path else None)
            if identity:
                current[name] = [model.path, identity]
        if current and current != known:
            write_json(store, current)
        return {name: identity for name, (_, identity) in current.items()}

    def model(self, name: str | None) -> str | None:
        """Identity of a model of the configuration; None when it was never seen on this machine."""
        return self._identities.get(name) if name else None

    @cached_method
    def operator(self, name: str) -> str:
        """Fingerprint of what decides an operator's scores beside the records."""
        definition = self.configuration.operators[name]
        facts = {
            "op": definition.op,
            "parameters": definition.parameters,
            "model": self.model(definition.model),
            "version": operator_spec(definition.op).version,
            **self.reading,
        }
        return sha256_json(facts)[:16]

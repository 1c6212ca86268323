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
from bettersynth.configuration.storage import expand, is_archive, storage_of
from bettersynth.configuration.types import Configuration
from bettersynth.core import versions
from bettersynth.core.cached import cached_method
from bettersynth.core.digests import digest
from bettersynth.core.layout import Layout
from bettersynth.core.names import ShardName
from bettersynth.core.publish import (
    read_json,
    sha256_json,
    where_allowed,
    write_json,
)
from bettersynth.core.raw import other_kind
from bettersynth.core.records import POOL
from bettersynth.workflow.digests import FileDigest, is_remembered, shard_digests
from bettersynth.workflow.models import model_identities
from bettersynth.workflow.passes import Chunk
from bettersynth.workflow.pictures import Look, look, remember, remembered
from bettersynth.workflow.roots import roots_of


def _remedy(path: str) -> str:
    if Path("data/miniature") in (Path(path), *Path(path).parents):
        return "render the miniature's pairs: make world"
    return "put it there or correct the path"


class Fingerprints:
    """Fingerprints of a configuration's inputs: raw files, models and other files; those not here as they last were."""

    def __init__(self, configuration: Configuration, layout: Layout, *, looks: bool = False) -> None:
        """`looks`: look at the pool's pictures, where it is asked for; otherwise what was last found stands."""
        self.configuration = configuration
        self.layout = layout
        self._digests: dict[str, FileDigest] = {}
        self._ledgers: dict[str, dict[str, Any]] = {}
        self._contents: dict[str, Any] | None = None
        self._looks = looks

    def check_inputs(self, config_file: str) -> None:
        """Refuse to go on when raw files are missing: ConfigurationError names each, and what to do.

        Where a run was carried to in a bundle, only what its next jobs read is there.
        """
        pool = self.configuration.pool
        if self.layout.is_carried and all(is_remembered(file, self.layout.digests) for file in pool.files):
            return
        if missing := list(self._missing()):
            raise ConfigurationError(
                config_file, [f"{key}: {path}: not there; {_remedy(path)}" for key, path in missing]
            )
        if problems := list(self._other_kinds()):
            raise ConfigurationError(config_file, problems)

    def _missing(self) -> Iterator[tuple[str, str]]:
        """Files and folders of the pool that are not there, and the keys that name them."""
        for file in self.configuration.pool.files:
            paths = expand(file.path) or [file.path]
            yield from ((f"pool.files.{file.name}", path) for path in paths if not Path(path).exists())
        for place in roots_of(self.configuration.pool).places:
            if not Path(place).exists():
                yield "pool.images", place

    def _other_kinds(self) -> Iterator[str]:
        """Files that are none of the kinds that they are read as: of the pool, questions to restore, instructions."""
        pool = self.configuration.pool
        for file in pool.files:
            found = (storage_of(path).problem(Path(path)) for path in expand(file.path))
            yield from (f"pool.files.{file.name}: {problem}" for problem in found if problem)
        for place in roots_of(pool).places:
            if Path(place).is_file() and not is_archive(place):
                yield f"pool.images: {place}: neither a folder nor a .zip or .tar file with pictures"
        lines = [("pool.restore", path) for path in pool.restore]
        for stage in instruction_sets(self.configuration).values() if self.configuration.training else ():
            lines.append(("training.finetune.instructions", stage.instructions))
        yield from (f"{key}: {kind}" for key, path in lines if (kind := other_kind(path)))

    @property
    def reading(self) -> dict[str, Any]:
        """How images are read, where that is not as usual."""
        grey = self.configuration.pool.deep_grey
        return {} if grey == USUAL.deep_grey else {"deep_grey": grey}

    # files that nothing in the graph makes
    def contents(self, *paths: str) -> list[str | None]:
        """Digests of input files; of one that is missing, what it last had here, or None.

        A rule that carries them as parameters reads the files as `ancient`: it runs again when contents change, not
        when a file is touched, copied or moved.
        """
        return [self._content(Path(path)) for path in paths]

    def _content(self, path: Path) -> str | None:
        store = self.layout.inputs
        if self._contents is None:
            self._contents = read_json(store) if store.exists() else {}
        known = self._contents.get(str(path))
        last = known[-1] if isinstance(known, list) else known  # a list in results of an earlier version
        if not path.exists():
            return last
        if (found := digest(path)) != last:
            self._contents[str(path)] = found
            with where_allowed():
                write_json(store, self._contents)
        return found

    # pool
    def digest(self, file: str) -> FileDigest:
        """Fingerprints of a raw file and of each of its shards."""
        if file not in self._digests:
            entry = next(entry for entry in self.configuration.pool.files if entry.name == file)
            self._digests[file] = shard_digests(self.configuration.pool, entry, self.layout.digests)
        return self._digests[file]

    def pictures(self, file: str) -> Look:
        """What has become of a raw file's pictures since they were read in."""
        return self._pictures.get(file) or remembered(file, self.configuration.pool, self.layout)

    @cached_property
    def _pictures(self) -> dict[str, Look]:
        """Where a run was carried to in a bundle, only the pictures that its next jobs read are there."""
        if not self._looks or self.layout.is_carried:
            return {}
        pool = self.configuration.pool
        looks = {file.name: look(file.name, pool, self.layout) for file in pool.files}
        remember(looks, self.layout)
        return looks

    def images(self, file: str) -> dict[str, str]:
        """What decides, of the pictures, whether a raw file is read again: the same ones elsewhere are no others."""
        found = self.pictures(file)
        return {"images": found.root} | ({"pictures": found.stamp} if found.stamp else {})

    @property
    def checks(self) -> dict[str, Any]:
        """What decides, beside the raw file, which records are quarantined."""
        trains = {"trains": self.contents(*self.configuration.pool.restore)} if self.configuration.trains else {}
        return {**self.configuration.pool.checks, "version": versions.INGEST, **trains}

    def is_ingested(self, shard: str) -> bool:
        """Whether the pool's shard is there as the raw file and the checks make it now."""
        file = ShardName.parse(shard).prefix
        ledger = self._ledger(file)
        made = ledger.get("shards", {}).get(shard)
        return (
            made is not None
            and shard not in self.pictures(file).shards
            and made["digest"] == self.digest(file).shards[shard]
            and {key: ledger["parameters"].get(key) for key in self.checks} == self.checks
        )

    def is_scored(self, chunk: Chunk, shard: str) -> bool:
        """Whether the pool's shard, as the raw file and the checks make it now, is the one that the pass scored."""
        if not self.is_ingested(shard):
            return False
        made = self._ledger(ShardName.parse(shard).prefix)["shards"][shard]
        return bool(self._scored_records(chunk).get(shard) == made["sha256"])

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
    def _identities(self) -> dict[str, str]:
        return model_identities(self.configuration.models, self.layout.models)

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

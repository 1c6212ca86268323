"""What Snakemake asks while it builds the graph: fingerprints of raw files and of models.

A rule that costs a GPU reads its big inputs as `ancient` and carries these fingerprints as parameters, so it runs
again when contents change and never because a file was touched, copied or moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from bettersynth.configuration.catalogue import CATALOGUE
from bettersynth.configuration.generators import BestBy, Captioner, Redrawer
from bettersynth.configuration.load import recipe_training, recipe_trainset
from bettersynth.configuration.pool import USUAL
from bettersynth.configuration.reading import ConfigurationError
from bettersynth.configuration.training import KIT_PROGRAM, RUNS_ONLY
from bettersynth.configuration.types import Configuration
from bettersynth.core import versions
from bettersynth.core.layout import Layout
from bettersynth.core.publish import (
    counts_in_folder,
    files_below,
    read_json,
    sha256_bytes,
    sha256_file,
    sha256_json,
    write_json,
)
from bettersynth.core.records import POOL
from bettersynth.workflow.digests import FileDigest, is_remembered, shard_digests
from bettersynth.workflow.passes import Chunk, Passes, chunk_shards
from bettersynth.workflow.plan import Plan

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


class Graph:
    """Parameters of the rules, from the configuration and from fingerprints of its inputs."""

    def __init__(
        self, configuration: Configuration, layout: Layout, plan: Plan, targets: Callable[[], Iterable[str]]
    ) -> None:
        self.configuration = configuration
        self.layout = layout
        self.passes = Passes(
            plan,
            layout,
            self.operator,
            lambda: plan.wanted_scores(targets()),
            configuration.scoring.shards_per_job,
        )
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

    @property
    def _reading(self) -> dict[str, Any]:
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

    def ingest(self, file: str) -> dict[str, Any]:
        """What decides whether a raw file is read again."""
        pool = self.configuration.pool
        entry = next(entry for entry in pool.files if entry.name == file)
        return {"digest": self.digest(file).file, "shards": entry.shards, "images": pool.images, **self._checks}

    @property
    def _checks(self) -> dict[str, Any]:
        """What decides, beside the raw file, which records are quarantined."""
        pool = self.configuration.pool
        return {"max_pixels": pool.max_pixels, "decode": pool.decode, "version": versions.INGEST}

    def is_scored(self, chunk: Chunk, shard: str) -> bool:
        """Whether the pool's shard, as the raw file and the checks make it now, is the one that the pass scored."""
        file = shard.rpartition("-")[0]
        ledger = self._ledger(file)
        made = ledger.get("shards", {}).get(shard)
        return (
            made is not None
            and made["digest"] == self.digest(file).shards[shard]
            and {key: ledger["parameters"].get(key) for key in self._checks} == self._checks
            and self._scored_records(chunk).get(shard) == made["sha256"]
        )

    @cache  # noqa: B019 - there is one graph in a process
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

    # scores and generators
    @cache  # noqa: B019
    def operator(self, name: str) -> str:
        """Fingerprint of what decides an operator's scores beside the records."""
        definition = self.configuration.operators[name]
        facts = {
            "op": definition.op,
            "parameters": definition.parameters,
            "model": self.model(definition.model),
            "version": CATALOGUE[definition.op].version,
            **self._reading,
        }
        return sha256_json(facts)[:16]

    def score(self, source: str, chunk: str) -> dict[str, Any]:
        """What decides whether a pass runs again over a chunk: of the pool, the shards' contents.

        Operators and models are in the pass's name.
        """
        if source != POOL:
            return {}
        file = chunk.rsplit("-", 2)[0]
        return {"records": [self.digest(file).shards[shard] for shard in chunk_shards(chunk)]}

    def score_cards(self, source: str, operator: str) -> list[Path]:
        """Cards of the passes that score a source by an operator."""
        return [self.layout.pass_card(source, *chunk) for chunk in self.passes.chunks(source, operator)]

    def generate(self, source: str) -> dict[str, Any]:
        """What decides a generated shard, apart from the rows asked for."""
        node = self.configuration.datasets[source]
        facts: dict[str, Any] = {
            "parameters": node.parameters.model_dump_json(),
            "version": versions.GENERATE,
            **self._reading,
        }
        entry: Captioner | Redrawer | None = None
        if node.recaption:
            entry = self.configuration.captioners[node.recaption.captioner]
        if node.redraw:
            entry = self.configuration.redrawers[node.redraw.redrawer]
        if entry is not None:
            facts["engine"] = entry.model_dump_json(exclude={"model", "batch", "workers"})
            facts["model"] = self.model(entry.model)
        scored_by = entry.keep.operator if isinstance(entry, Captioner) and isinstance(entry.keep, BestBy) else None
        if node.clean and node.clean.language:
            scored_by = node.clean.language.operator
        if scored_by is not None:
            operator = self.configuration.operators[scored_by]
            facts["scored_by"] = [operator.model_dump_json(exclude={"model"}), self.model(operator.model)]
        return facts

    # datasets
    def dataset(self, name: str) -> dict[str, Any]:
        """The dataset's definition."""
        definition = self.configuration.datasets[name].model_dump_json(
            exclude={"note", "published_rows"}, exclude_none=True, by_alias=True
        )
        return {"definition": definition, "version": versions.DATASET}

    def analysis(self, name: str) -> dict[str, Any]:
        """The analysis's definition."""
        definition = self.configuration.analyses[name]
        return {"definition": definition.model_dump_json(include={"dataset", "operators"}), "version": versions.DATASET}

    def trainset(self, recipe: str) -> dict[str, Any]:
        """What decides a training file, apart from the dataset's rows and records."""
        return {
            "dataset": self.configuration.recipes[recipe].dataset,
            "settings": recipe_trainset(self.configuration, recipe).model_dump_json(),
            "version": versions.TRAINSET,
            **self._paths_and_questions(),
        }

    def export(self) -> dict[str, Any]:
        """What decides an exported dataset, apart from its rows and records."""
        return {
            "question": self.configuration.trainset.question,
            "version": versions.EXPORT,
            **self._paths_and_questions(),
        }

    def _paths_and_questions(self) -> dict[str, Any]:
        pool = self.configuration.pool
        return {"images": pool.images, "restore": self.contents(*pool.restore)}

    # training and evaluation
    def train(self, recipe: str, stage: str) -> dict[str, Any]:
        """What decides a training stage, apart from its training file."""
        training = recipe_training(self.configuration, recipe)
        architecture = training.architecture
        settings = training.finetune if stage == "finetune" else training.pretrain
        parts = {"language_model", "vision_tower", "vision_tower_aux"}
        facts: dict[str, Any] = {
            "architecture": architecture.model_dump_json(exclude=parts),
            **{part: self.model(getattr(architecture, part)) for part in sorted(parts)},
            "stage": settings.model_dump_json(exclude=set(RUNS_ONLY)),
            "version": versions.TRAIN,
            **self._reading,
        }
        if training.start_from:
            facts["start_from"] = training.start_from.model_dump_json()
        if training.kit:
            facts["kit"] = self.contents(*(str(Path(training.kit.path, name)) for name in KIT_PROGRAM))
        if stage == "finetune":
            facts["instructions"] = self.contents(training.finetune.instructions)
        if stage == "probe":
            facts["steps"] = training.probe.steps
        return facts

    def benchmark_files(self, benchmark: str) -> list[str]:
        """Question and annotation files of a benchmark."""
        section = self._benchmark(benchmark)
        return [section.questions, *([section.annotations] if benchmark == "textvqa" else [])]

    def answer(self, benchmark: str) -> dict[str, Any]:
        """What decides the answers to a benchmark, apart from the model."""
        section = self._benchmark(benchmark)
        return {
            "questions": self.contents(section.questions),
            "max_new_tokens": section.max_new_tokens,
            "precision": self.configuration.evaluation.precision,  # type: ignore[union-attr]
            "version": versions.ANSWER,
            **self._reading,
        }

    def score_answers(self, benchmark: str) -> dict[str, Any]:
        """What decides the scores, apart from the answers."""
        return {"files": self.contents(*self.benchmark_files(benchmark)), "version": versions.SCORE_ANSWERS}

    def _benchmark(self, benchmark: str) -> Any:
        return getattr(self.configuration.evaluation, benchmark)

    # report
    def report(self) -> dict[str, Any]:
        """What decides the report, apart from results."""
        configuration, report = self.configuration, self.configuration.report
        return {
            "settings": report.model_dump_json(exclude={"truth"}),
            "notes": {name: [dataset.note, dataset.published_rows] for name, dataset in configuration.datasets.items()},
            "analyses": {name: analysis.model_dump_json() for name, analysis in configuration.analyses.items()},
            "truth": self.contents(report.truth) if report.truth else None,
            "version": versions.REPORT,
        }

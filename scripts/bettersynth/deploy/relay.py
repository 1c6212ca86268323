"""Carry a run from one machine to another and its results back, so that nothing is done twice.

A *work* bundle holds what the next jobs of a run read: their input files, what goes with those (a checkpoint beside its
card), the images they name, code, configuration, and Snakemake's records of how the files came about. A *results*
bundle holds what the jobs of this machine finished. Paths are relative to the working directory, and all files get the
time of their unpacking, so neither another folder nor another clock makes Snakemake run anything again.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from bettersynth.configuration.section import NAME_PATTERN
from bettersynth.configuration.types import Configuration
from bettersynth.core.digests import files_below
from bettersynth.core.errors import PersonError
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, sha256_file, write_json
from bettersynth.core.resources import resource
from bettersynth.core.tables import read_table
from bettersynth.deploy.archive import SHOWN, differing, first_problem, read_manifest, unpack
from bettersynth.deploy.places import CODE_PARTS, COMES_HOME, METADATA, RUNS, place, recorded_output
from bettersynth.pool.images import ImageRoots
from bettersynth.pool.rows import load_records, read_rows
from bettersynth.report.history import commit
from bettersynth.training.mgm.instructions import pictures_of
from bettersynth.workflow.announced import AnnouncedJob, from_output
from bettersynth.workflow.archives import file_of
from bettersynth.workflow.jobs import Jobs
from bettersynth.workflow.jobs.specification import (
    ImagesOfDataset,
    ImagesOfInstructions,
    ImagesOfList,
    ImagesOfRecords,
    Read,
)
from bettersynth.workflow.manifest import manifest_path
from bettersynth.workflow.plan import Plan

CODE = Path(__file__).resolve().parents[3]
INCOMPLETE = Path(".snakemake") / "incomplete"
IMAGE_COLUMNS = ["images", "image_root"]


class RelayError(PersonError, ValueError):
    """What was asked for cannot be bundled, or does not go with what is here."""


class Bundle(NamedTuple):
    """Files of a bundle (name in it → path here), and what its manifest says beside them."""

    files: dict[str, Path]
    facts: dict[str, Any]


def announced_jobs(config_file: Path, targets: Iterable[str], until: str | None) -> list[AnnouncedJob]:
    """The jobs that Snakemake would run for the targets, up to a rule if one is named."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(CODE / "Snakefile"), "--configfile"]
    command += [str(config_file), "--dry-run", "--quiet", "all", "--logger", "jobs", "--cores", "1"]
    command += ["--until", until] if until else []
    environment = {**os.environ, "PYTHONPATH": str(CODE / "scripts")}
    result = subprocess.run([*command, "--", *targets], capture_output=True, text=True, env=environment, check=False)
    if result.returncode:
        raise RelayError(f"Snakemake cannot plan this:\n{result.stdout}{result.stderr}")
    return from_output(result.stdout)


def final_outputs(jobs: Iterable[AnnouncedJob]) -> list[str]:
    """First outputs of the jobs that no other of them reads from."""
    read = {file for job in jobs for file in job.input}
    return sorted(job.output[0] for job in jobs if not read.intersection(job.output))


def part_of(jobs: list[AnnouncedJob], number: int, parts: int) -> list[AnnouncedJob]:
    """Every so-many-th of the final jobs, and the jobs that these need."""
    wanted = set(final_outputs(jobs)[number - 1 :: parts])
    chosen: list[AnnouncedJob] = []
    for job in reversed(_in_order(jobs)):
        if wanted.intersection(job.output):
            chosen.append(job)
            wanted.update(job.input)
    return chosen[::-1]


def _in_order(jobs: Iterable[AnnouncedJob]) -> list[AnnouncedJob]:
    """Jobs after those whose outputs they read."""
    waiting, made, ordered = list(jobs), set[str](), list[AnnouncedJob]()
    unmade = {file for job in waiting for file in job.output}
    while waiting:
        ready = [job for job in waiting if unmade.intersection(job.input) <= made]
        ordered += ready
        made.update(file for job in ready for file in job.output)
        waiting = [job for job in waiting if job.output[0] not in made]
    return ordered


class Relay:
    """Bundles of one configuration, made in the working directory."""

    def __init__(self, configuration: Configuration, config_file: Path) -> None:
        self.configuration = configuration
        self.config_file = Path(os.path.relpath(config_file))
        if self.config_file.parts[0] == "..":
            raise RelayError(f"{config_file}: lies outside of this folder, so it cannot go along; copy it to config/")
        self.layout = Layout(Path("results") / str(configuration.name))
        self.plan = Plan(configuration)
        self.specified = Jobs(configuration, self.layout, self.plan)
        self._roots = ImageRoots(configuration.pool, self.layout)

    # work
    def due(self, targets: Iterable[str], until: str | None) -> list[AnnouncedJob]:
        """The jobs that would run for the targets, up to a rule if one is named, but those that run at home."""
        found = announced_jobs(self.config_file, targets, until)
        return [job for job in found if not self.specified.job(job.rule, job.wildcards).rule.sees_everything]

    def work(self, jobs: list[AnnouncedJob], *, models: bool = False, recipe: str | None = None) -> Bundle:
        """What the jobs, of one recipe or of all, need; `models` by value, or by reference: staged on that machine."""
        made = {file for job in jobs for file in job.output}
        declared = {Path(file) for job in jobs for file in job.input if file not in made}
        paths = declared | {path for file in declared for path in self.companions(file)}
        paths |= {path for job in jobs for path in self._reads(job)}
        paths |= {self.config_file, *self._if_there(manifest_path(self.configuration))}
        model_paths = self._model_paths(jobs)
        if models:
            paths |= {file for path in model_paths for file in _files(path)}
        files, outside = _inside(paths)
        files |= {str(_record_of(name)): _record_of(name) for name in files if _record_of(name).exists()}
        files |= _code()
        facts = {
            "kind": "work",
            "configuration": self.configuration.name,
            "config_file": str(self.config_file),
            "recipe": recipe,
            "targets": final_outputs(jobs),
            "memory": {str(path): read_json(path) for path in _memory(self.layout) if path.exists()},
            "elsewhere": sorted({*outside, *(() if models else map(str, model_paths))}),
        }
        return Bundle(files, facts)

    def companions(self, file: Path) -> Iterator[Path]:
        """Files that go with a rule's output: a checkpoint, answers, score shards, records and their images."""
        if file.is_relative_to(self.layout.root) and file.exists() and (job := self.specified.maker(file)):
            for read in job.companions(file):
                yield from self._files_of(read)

    def _reads(self, announced: AnnouncedJob) -> Iterator[Path]:
        """What a job reads beside its declared input."""
        job = self.specified.job(announced.rule, announced.wildcards)
        if not job.rule.knows_reads:
            raise RelayError(
                f"{announced.rule}: which images it reads is not known before; take the pool in here: snakemake "
                f"--configfile {self.config_file} --cores all -- {self.layout.index}"
            )
        for read in job.also_reads:
            yield from self._files_of(read)

    def _files_of(self, read: Read) -> Iterator[Path]:
        """The files, as far as they are here; all images that a list names which is the run's own."""
        match read:
            case ImagesOfRecords(table):
                for records in self._if_there(table):
                    yield from self._images(records)
            case ImagesOfDataset(dataset):
                yield from self._dataset_images(dataset)
            case ImagesOfList(path, folder):
                for images in self._if_there(path):
                    yield from _named_images(images, self._roots.named if folder is None else folder.joinpath)
            case ImagesOfInstructions(stage):
                for picture in pictures_of(stage):
                    yield from self._if_there(Path(file_of(picture)))
            case Path():
                yield from self._if_there(read)

    def _images(self, records: Path) -> Iterator[Path]:
        """Images of all records of a shard."""
        yield from self._existing_images(read_table(records, IMAGE_COLUMNS).to_pylist())

    def _dataset_images(self, dataset: str) -> Iterator[Path]:
        """Images of a dataset's rows or, while these are not chosen, of all records that they may be chosen from."""
        if self.layout.rows(dataset).exists():
            rows = load_records(read_rows(dataset, self.layout), self.layout, self.plan)
            yield from self._existing_images(rows.select(IMAGE_COLUMNS).to_pylist())
            return
        for source in self.plan.sources(dataset):
            for shard in self.plan.shards(source):
                for records in self._if_there(self.layout.records(source, shard)):
                    yield from self._images(records)

    def _existing_images(self, records: Iterable[Mapping[str, Any]]) -> Iterator[Path]:
        for record in records:
            for image in record["images"]:
                yield from self._if_there(Path(file_of(self._roots.plain(record["image_root"], image))))

    @staticmethod
    def _if_there(path: Path) -> Iterator[Path]:
        if path.exists():
            yield path

    def _model_paths(self, jobs: Iterable[AnnouncedJob]) -> list[Path]:
        """Models, word lists and taggers of the jobs. A pass that is due has been defined by the dry run."""
        needs = [self.specified.job(job.rule, job.wildcards).needs for job in jobs]
        models = {Path(self.configuration.models[name].path) for need in needs for name in need.models}
        return sorted(models | {resource(name).path for need in needs for name in need.resources})

    # results
    def results(self) -> Bundle:
        """What was finished on this machine: not what came here in a bundle."""
        outputs = [name for name in recorded_outputs() if Path(name).is_relative_to(self.layout.root)]
        outputs = [name for name in outputs if Path(name).exists() and not _came_here(name, self._received())]
        paths = {Path(name) for name in outputs}
        paths |= {path for name in outputs for path in self.companions(Path(name))}
        made_from: dict[str, str] = {}
        for name in outputs:
            record = read_json(_record_of(name))
            made_from |= {file: digest.removeprefix("sha256:") for file, digest in record["input_checksums"].items()}
            logs = [Path(log) for log in record["log"]]
            benchmarks = [Path("benchmarks", *log.parts[1:]).with_suffix(".tsv") for log in logs]
            paths |= {path for path in (*logs, *benchmarks) if path.exists()}
        paths |= {path for path in (self.layout.history, self.layout.configuration) if path.exists()}
        files, _ = _inside(paths)
        files |= {str(_record_of(name)): _record_of(name) for name in outputs}
        facts = {
            "kind": "results",
            "configuration": self.configuration.name,
            "settings": self.configuration.model_dump(mode="json", by_alias=True, exclude_none=True),
            "commit": commit(),
            "made_from": made_from,
        }
        return Bundle(files, facts)

    def _received(self) -> dict[str, str]:
        """sha256 of every file that came here in a bundle."""
        found: dict[str, str] = {}
        for path in sorted(self.layout.received.glob("*.json")):
            found |= {name: entry["sha256"] for name, entry in read_json(path)["files"].items()}
        return found


class _Facts(BaseModel):
    """What the manifest of a bundle says beside its files, as far as it is used where the bundle is opened."""

    configuration: str
    config_file: str | None = None
    recipe: str | None = None
    targets: list[str] = []
    memory: dict[str, dict[str, Any]] = {}
    elsewhere: list[str] = []
    made_from: dict[str, str] = {}


def receive(
    archive: Path, kind: str, *, replace: bool = False, takes: Callable[[list[str]], bool] = lambda names: False
) -> tuple[dict[str, Any], int]:
    """Unpack a bundle of a kind (`work`, `results`) into the working directory; return its manifest and new files.

    Files that are here with the same bytes stay untouched. Raises RelayError when some are here with other bytes,
    unless these are to be replaced, when results were made from other inputs than those here, when files belong
    elsewhere, and when the person does not take (`takes`) the code and configuration that come with it.
    """
    manifest = read_manifest(archive)
    if manifest.get("kind") != kind:
        other = {"work": "make unbundle", "results": "make merge"}.get(str(manifest.get("kind")), "tar -xf")
        raise RelayError(f"{archive}: not {kind}; open it with: {other} FROM={archive}")
    layout = _check_facts(archive, manifest)
    places = {name: place(name, layout, manifest.get("config_file")) for name in manifest["files"]}
    astray = [name for name, what in places.items() if what is None or (kind == "results" and what not in COMES_HOME)]
    _refuse(archive, [f"{name}: no place for {kind}" for name in astray], "Bundles that `make bundle` makes hold none.")
    missing, other_bytes = differing(manifest, Path())
    beside = {name for name in other_bytes if name.startswith((f"{METADATA}/", "logs/", "benchmarks/"))}
    changed = {*missing, *other_bytes}
    if not replace:
        conflicts = [f"{name}: here with other bytes" for name in other_bytes if name not in beside]
        _refuse(archive, conflicts, "Move away what is not wanted, or take the bundle's files instead: REPLACE=1")
    made_from_others = _other_inputs(manifest, changed)
    _refuse(archive, made_from_others, "Bundle the work again from what is here, or bring back what it was made from.")
    if (runs := _unknown_code(manifest, changed)) and not takes(runs):
        raise RelayError(f"{archive}: nothing was unpacked. To take code and configuration that it brings: YES=1")
    kept = {str(_record_of(name)) for name in manifest["files"] if name not in changed}
    wanted = changed - (kept & beside)
    unpack(archive, manifest, Path(), wanted)
    _remember(manifest, wanted)
    return manifest, len(changed)


def _check_facts(archive: Path, manifest: Mapping[str, Any]) -> Layout:
    """Where the results of a bundle belong. Raises RelayError for a manifest that no bundle of ours has."""
    try:
        facts = _Facts.model_validate(manifest, strict=True)
    except ValidationError as error:
        raise RelayError(f"{archive}: {first_problem(error)}; copy it here again") from error
    for key, name in (("configuration", facts.configuration), ("recipe", facts.recipe)):
        if name is not None and not re.fullmatch(NAME_PATTERN, name):
            raise RelayError(f"{archive}: {name!r} is no name of a {key}")
    printed = [*facts.targets, *facts.elsewhere]
    if odd := next((text for text in printed if not text.isprintable() or text.startswith("-")), None):
        raise RelayError(f"{archive}: {odd!r} is no name of a file")
    if manifest["kind"] == "work" and facts.config_file not in manifest["files"]:
        raise RelayError(f"{archive}: its configuration {facts.config_file!r} is not in it")
    return Layout(Path("results") / facts.configuration)


def _unknown_code(manifest: Mapping[str, Any], changed: set[str]) -> list[str]:
    """Code and configuration that would come here and is neither here already nor what runs now."""
    layout = Layout(Path("results") / manifest["configuration"])
    runs = [name for name in sorted(changed) if place(name, layout, manifest.get("config_file")) in RUNS]
    running = (CODE / name for name in runs)
    digests = [sha256_file(path) if path.is_file() else None for path in running]
    return [name for name, digest in zip(runs, digests, strict=True) if digest != manifest["files"][name]["sha256"]]


def _remember(manifest: Mapping[str, Any], unpacked: Iterable[str]) -> None:
    """Note what Snakemake and the graph have to know of the files that came, and the bundle itself."""
    INCOMPLETE.mkdir(parents=True, exist_ok=True)  # without it, Snakemake takes its records for an old version's
    for name in unpacked:
        if name.startswith(f"{METADATA}/"):  # a job that broke off here was finished there
            (INCOMPLETE / Path(name).relative_to(METADATA)).unlink(missing_ok=True)
    layout = Layout(Path("results") / manifest["configuration"])
    for path in _memory(layout):
        if entries := manifest.get("memory", {}).get(str(path)):
            write_json(path, {**(read_json(path) if path.exists() else {}), **entries})
    write_json(layout.received / f"{manifest['kind']}-{manifest['bundle'][:16]}.json", manifest)


def _memory(layout: Layout) -> tuple[Path, ...]:
    """What the graph remembers of inputs that may not be here."""
    return layout.models, layout.inputs, layout.digests, layout.looks


def _refuse(archive: Path, conflicts: list[str], remedy: str) -> None:
    if conflicts:
        more = [f"… and {len(conflicts) - SHOWN} more"] if len(conflicts) > SHOWN else []
        lines = "\n".join(f"  {line}" for line in [*conflicts[:SHOWN], *more])
        raise RelayError(f"{archive} does not go with what is here:\n{lines}\nNothing was unpacked. {remedy}")


def _other_inputs(manifest: Mapping[str, Any], changed: set[str]) -> list[str]:
    """Inputs of the bundle's results that are here with other contents than they were made from."""
    return [
        f"{name}: the results were made from another"
        for name, digest in sorted(manifest.get("made_from", {}).items())
        if name not in changed and Path(name).is_file() and sha256_file(name) != digest
    ]


# Snakemake's records: one file for each output, named for it
def _record_of(output: str) -> Path:
    """Where Snakemake keeps its record of an output (`FilePersistence`): names too long are cut into folders."""
    name, longest = urlsafe_b64encode(output.encode()).decode(), os.pathconf("/", "PC_NAME_MAX") - 1
    pieces = [name[start : start + longest] for start in range(0, len(name), longest)]
    return METADATA.joinpath(*(f"@{piece}" for piece in pieces[:-1]), pieces[-1])


def recorded_outputs() -> list[str]:
    """Outputs of the jobs that Snakemake has on record as finished."""
    found = []
    for name in files_below(METADATA):
        if not (INCOMPLETE / name).exists() and (output := recorded_output(PurePosixPath(name))):
            found.append(output)
    return sorted(found)


def _came_here(name: str, received: Mapping[str, str]) -> bool:
    return name in received and sha256_file(name) == received[name]


def _named_images(path: Path, find: Callable[[str], Path]) -> Iterator[Path]:
    """Images that a LLaVA list names, or the archives that they lie in; entries without one are text only."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    yield from dict.fromkeys(Path(file_of(find(entry["image"]))) for entry in entries if "image" in entry)


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else list(files_below(path).values())


def _inside(paths: Iterable[Path]) -> tuple[dict[str, Path], list[str]]:
    """Files below the working directory, by their names there, and the names of those that lie elsewhere."""
    inside: dict[str, Path] = {}
    outside: list[str] = []
    for path in paths:
        name = os.path.relpath(path)
        if name.startswith(".."):
            outside.append(str(path))
        else:
            inside[name] = path
    return inside, outside


def _code() -> dict[str, Path]:
    """The Snakefile, rules, scripts, profiles and lock: what a working directory needs to run."""
    files = (path for part in CODE_PARTS for path in _files(CODE / part) if "__pycache__" not in path.parts)
    return {path.relative_to(CODE).as_posix(): path for path in files}

"""Stage what a configuration needs: models, word lists, taggers and wheels, with a manifest of all of it.

Models go straight to their `path` in `models`, so that jobs find them there on any machine the folder is copied to.
"""

from __future__ import annotations

import io
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.util import load_yaml_guess_indent

from bettersynth.configuration.pool import Model
from bettersynth.configuration.types import Configuration
from bettersynth.core.commands import make
from bettersynth.core.digests import files_below
from bettersynth.core.model_files import folder_problems
from bettersynth.core.publish import publish, sha256_bytes, sha256_file, write_json
from bettersynth.core.resources import StagingError, fetch_resources, resource
from bettersynth.deploy import hub
from bettersynth.deploy.hub_data import fetch_data
from bettersynth.workflow.manifest import STAGING, check_folder, describe, manifest_path, partial_folder, read_manifest
from bettersynth.workflow.needs import configuration_needs, data_files, tokenizers

WHEELS = STAGING / "wheels"
LONGEST_LINE = 10_000
"""Characters; no line of a configuration is broken when it is written again."""
ENVS = Path(__file__).resolve().parents[3] / "envs"
GIB = 2**30
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
THIS_PYTHON = platform.python_version()
WHEEL_BYTES = {"cpu": GIB, "cuda": 5 * GIB}
"""Roughly what the locked wheels take, for the estimate before anything is fetched."""


class Step(NamedTuple):
    """A model and how it comes to its path: it is `staged` or `there` already, or is to be copied or fetched."""

    name: str
    path: Path
    state: str
    size: int = 0
    """Bytes that it still takes."""
    folder: Path | None = None
    snapshot: hub.Snapshot | None = None

    def is_pinned(self, model: Model) -> bool:
        """Whether the configuration names the commit that the hub would give."""
        return self.snapshot is None or self.snapshot.revision == model.revision

    def __str__(self) -> str:
        source = self.folder or (self.snapshot and f"{self.snapshot.hub} at {self.snapshot.revision[:12]}") or self.path
        size = f", {self.size / 1e6:,.1f} MB" if self.size else ""
        return f"{self.name}: {self.state}{size} ({source})"


class Wheels(NamedTuple):
    """For which machine wheels are staged."""

    torch: str
    """Which build of it: `cpu` or `cuda`."""
    python: str
    """Version, such as `3.11.9`: some packages ask for a late one, and to pip `3.11` is `3.11.0`."""
    platforms: tuple[str, ...]
    """As pip names them, such as `manylinux_2_28_x86_64`; none for a machine like this one."""

    @property
    def folder(self) -> Path:
        """Where they lie: the builds of torch apart, because pip cannot tell which is meant."""
        return WHEELS / self.torch

    @property
    def requirements(self) -> tuple[Path, Path]:
        """The locked packages, and torch."""
        return ENVS / "lock.txt", ENVS / f"torch-{self.torch}.txt"

    @property
    def for_this_machine(self) -> bool:
        """Whether pip here can build for that machine too."""
        return not self.platforms and self.python.split(".")[:2] == THIS_PYTHON.split(".")[:2]

    def description(self) -> dict[str, Any]:
        """What the manifest says of them, files aside."""
        packages = sha256_bytes(b"".join(file.read_bytes() for file in self.requirements))
        return {**self._asdict(), "platforms": list(self.platforms), "packages": packages, "path": str(self.folder)}


def plan(
    configuration: Configuration, copies: Path | None = None, recipe: str | None = None, *, newest: bool = False
) -> list[Step]:
    """What has to be done for each model that the configuration, or one recipe, needs.

    The hub is asked only about those to be fetched. Raises StagingError with every model that cannot be had; those that
    name no commit are among them, unless their `newest` is asked for.
    """
    listed = read_manifest(configuration).get("models", {})
    steps: list[Step] = []
    problems: list[str] = []
    for name in configuration_needs(configuration, recipe).models:
        try:
            step = _step(name, configuration.models[name], listed.get(name), copies)
            if step.snapshot and not (newest or step.is_pinned(configuration.models[name])):
                raise StagingError(f"models.{name}: no commit; today's is `revision: {step.snapshot.revision}`")
            steps.append(step)
        except hub.UnreachableError:
            raise
        except StagingError as error:
            problems.append(str(error))
    if problems:
        if any("no commit" in problem for problem in problems):
            problems.append(
                f"Every machine must have the same model. To write these commits down: {make('stage', PIN='1')}"
            )
        raise StagingError("\n".join(problems))
    return steps


def known(configuration: Configuration, recipe: str | None = None) -> list[str]:
    """What the configuration itself says of each model that is needed."""
    lines = []
    for name in configuration_needs(configuration, recipe).models:
        model = configuration.models[name]
        there = "there" if Path(model.path).exists() else "not there"
        commit = model.revision[:12] if model.revision else "no commit: PIN=1"
        source = f"{model.hub} at {commit}" if model.hub else "no repository named"
        lines.append(f"{name}: {there} ({source})")
    return lines


def pin(config_file: Path, steps: list[Step], configuration: Configuration) -> dict[str, str]:
    """Write the commits that the hub named into the configuration file, beside `hub`; return them by model.

    Comments, quotes and the order of keys stay as they are.
    """
    commits = {
        step.name: step.snapshot.revision
        for step in steps
        if step.snapshot and not step.is_pinned(configuration.models[step.name])
    }
    if commits:
        text = write_commits(config_file.read_text(encoding="utf-8"), commits)
        with publish(config_file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return commits


def write_commits(text: str, commits: Mapping[str, str]) -> str:
    """The text of a configuration with a `revision` for each of these models."""
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, LONGEST_LINE
    content, indent, offset = load_yaml_guess_indent(text, yaml=yaml)
    for name, commit in commits.items():
        entry = content["models"][name]
        if "revision" in entry:
            entry["revision"] = commit
        elif "hub" in entry:
            entry.insert(list(entry).index("hub") + 1, "revision", commit)
        else:
            raise StagingError(f"models.{name}: write it there yourself: `revision: {commit}`")
    yaml.indent(mapping=2, sequence=indent or 4, offset=2 if offset is None else offset)
    written = io.StringIO()
    yaml.dump(content, written)
    return written.getvalue()


def _step(name: str, model: Model, listed: dict[str, Any] | None, copies: Path | None) -> Step:
    path = Path(model.path)
    if _is_staged(model, listed):
        return Step(name, path, "staged")
    found = hub.local_copy(copies, name, model.hub) if copies else None
    if found and not (path.exists() and found.samefile(path)):
        if path.exists():
            raise StagingError(
                f"{path}: there already, but not as `make stage` left it; to take {found}, move it away: "
                f"mv {path} {path}.old; to keep it, leave FROM out"
            )
        sizes = [(found / file).stat().st_size for file in hub.choose_files(str(found), files_below(found))]
        return Step(name, path, "to copy", sum(sizes), folder=found)
    if model.hub:
        snapshot = hub.look_up(name, model.hub, model.revision)
        if not path.exists():
            due = set(hub.missing(snapshot, partial_folder(path)))
            size = sum(file.size for file in snapshot.files if file.name in due)
            return Step(name, path, "to fetch", size, snapshot=snapshot)
        if bad := hub.missing(snapshot, path):
            raise StagingError(
                f"{path}: not what {model.hub} holds ({', '.join(bad)}); move it away: mv {path} {path}.old"
            )
        return Step(name, path, "there", snapshot=snapshot)
    if not path.exists():
        raise StagingError(
            f"models.{name}: nothing at {path}; name its repository (`hub`) and commit (`revision`), put the model "
            f"there, or give a folder of local copies: {make('stage', FROM='folder')}"
        )
    return Step(name, path, "there")


def _is_staged(model: Model, entry: dict[str, Any] | None) -> bool:
    if entry is None or [entry["path"], entry["hub"], entry["revision"]] != [model.path, model.hub, model.revision]:
        return False
    path = Path(model.path)
    whole = not path.is_dir() or not list(folder_problems(path, weights=False))
    return whole and not list(check_folder(path, entry["files"], ""))


def require_space(steps: list[Step], wheels: Wheels | None) -> None:
    """Raise StagingError when a disk has less room than is needed on it."""
    needed: dict[Path, int] = defaultdict(int)
    for step in steps:
        needed[_existing(step.path)] += step.size
    if wheels:
        needed[_existing(wheels.folder)] += WHEEL_BYTES[wheels.torch]
    by_disk: dict[int, list[Path]] = defaultdict(list)
    for place in needed:
        by_disk[place.stat().st_dev].append(place)
    for places in by_disk.values():
        wanted, free = sum(needed[place] for place in places), shutil.disk_usage(places[0]).free
        if wanted > free:
            raise StagingError(
                f"{places[0]}: {wanted / GIB:.1f} GiB are needed, {free / GIB:.1f} are free; make room, or change "
                "`path` in `models`"
            )


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(place for place in [path, *path.parents] if place.exists())


def stage_models(configuration: Configuration, steps: list[Step]) -> None:
    """Do what the steps say; each model is in the manifest as soon as it lies at its path."""
    for step in steps:
        model = configuration.models[step.name]
        licence = step.snapshot.licence if step.snapshot else "not stated"
        if step.state == "staged":
            continue
        if step.state == "to fetch" and step.snapshot:
            hub.fetch(step.snapshot, step.path)
        elif step.state == "to copy" and step.folder:
            hub.copy(step.folder, step.path)
        elif step.path.is_dir():
            hub.check(step.path, str(step.path), weights=step.name not in tokenizers(configuration))
        source = {"to fetch": "hub", "to copy": str(step.folder)}.get(step.state, "was there")
        entry = {**model.model_dump(), "licence": licence, "source": source, "files": describe(step.path)}
        _record(configuration, "models", {step.name: entry})


def stage_resources(configuration: Configuration, recipe: str | None = None) -> None:
    """Fetch the word lists and taggers that the configuration's operators, or one recipe's, read."""
    names = configuration_needs(configuration, recipe).resources
    fetch_resources(names=names)
    entries = {}
    for name in names:
        found = resource(name)
        source = f"{found.package}=={found.version}"
        entries[name] = {
            "path": str(found.path),
            "licence": found.licence,
            "source": source,
            "files": describe(found.path),
        }
    _record(configuration, "resources", entries)


def stage_data(configuration: Configuration) -> list[str]:
    """Fetch the pool's files that name a repository, note the data files that are there; return what is missing."""
    for file in configuration.pool.files:
        for line in fetch_data(file) if file.hub else ():
            print(line, flush=True)
    files = data_files(configuration)
    entries = {file: next(iter(describe(file).values())) for file in files if Path(file).is_file()}
    _record(configuration, "data", entries)
    return [file for file in files if file not in entries]


def wheels_are_staged(configuration: Configuration, wheels: Wheels) -> bool:
    """Whether the manifest lists these wheels, of this lock, and they are still as it says."""
    entry = dict(read_manifest(configuration).get("wheels", {}))
    files = entry.pop("files", {})
    return entry == wheels.description() and not list(check_folder(wheels.folder, files, ""))


def stage_wheels(configuration: Configuration, wheels: Wheels, torch_index: str | None = None) -> list[str]:
    """Fetch the locked packages, torch and pip as wheels; return the packages that have to be built on that machine.

    torch may come from another index, as PyTorch's own, which has small builds for CPUs.
    """
    if wheels_are_staged(configuration, wheels):
        return []
    _discard_halves(configuration, wheels)
    lock, torch = map(str, wheels.requirements)
    fetch = _wheel_command(wheels)
    _run([*fetch, "--no-deps", "-r", lock])
    _run([*fetch, "--no-deps", "-r", str(ENVS / "pip.txt")])
    where = ["--index-url", torch_index] if torch_index else []
    _run([*fetch, *where, "--only-binary=:all:", "-r", torch, "-c", lock])
    sources = sorted(path for path in wheels.folder.iterdir() if path.suffix != ".whl")
    unbuilt = [source.name for source in sources if not _build(source, wheels)]
    _record(configuration, "wheels", {**wheels.description(), "files": describe(wheels.folder)})
    return unbuilt


def _discard_halves(configuration: Configuration, wheels: Wheels) -> None:
    """Remove what a try that broke off, or a bad disk, left: pip would take it for a wheel."""
    listed = read_manifest(configuration).get("wheels", {}).get("files", {})
    for wheel in wheels.folder.glob("*.whl"):
        altered = wheel.name in listed and sha256_file(wheel) != listed[wheel.name]["sha256"]
        if altered or not zipfile.is_zipfile(wheel):
            wheel.unlink()


def _wheel_command(wheels: Wheels) -> list[str]:
    """The call of pip that puts wheels into their folder, where those that are there already are found."""
    folder = str(wheels.folder)
    if wheels.for_this_machine:
        return [*PIP, "wheel", "--wheel-dir", folder, "--find-links", folder]
    command = [*PIP, "download", "--dest", folder, "--find-links", folder, "--python-version", wheels.python]
    return command + [option for tag in wheels.platforms for option in ("--platform", tag)]


def _build(source: Path, wheels: Wheels) -> bool:
    """Build the wheel of a source package in its place, if it is one for every machine.

    Otherwise the source stays, and what building it needs is fetched for that machine, where pip will do it.
    """
    with tempfile.TemporaryDirectory() as folder:
        _run([*PIP, "wheel", "--no-deps", "--wheel-dir", folder, str(source)])
        (wheel,) = Path(folder).glob("*.whl")
        if wheel.name.endswith("-none-any.whl"):
            shutil.copyfile(wheel, source.with_name(wheel.name))
            source.unlink()
            return True
    _run([*_wheel_command(wheels), "--only-binary=:all:", *_build_requirements(source)])
    return False


def _build_requirements(source: Path) -> list[str]:
    """What a source package asks for to be built (PEP 518)."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.unpack_archive(source, folder, filter="data" if source.name.endswith(".tar.gz") else None)
        for project in Path(folder).glob("*/pyproject.toml"):
            return tomllib.loads(project.read_text(encoding="utf-8"))["build-system"]["requires"]
    return ["setuptools", "wheel"]


def _run(command: list[str]) -> None:
    if subprocess.run(command, check=False).returncode:
        raise StagingError(
            "pip could not get every wheel (its words are above); what has come stays, and the same command goes on"
        )


def _record(configuration: Configuration, section: str, entries: dict[str, Any]) -> None:
    """Add entries to a section of the manifest, the rest of which stays."""
    manifest = {"configuration": configuration.name, **read_manifest(configuration)}
    merged = {**manifest.get(section, {}), **entries} if section in ("models", "resources") else entries
    write_json(manifest_path(configuration), {**manifest, section: merged})

"""The manifest of what was staged for a configuration, and whether it is still so.

`stage/<configuration>.json` lists every file of every model, word list, wheel and data file with its size and sha256,
and for each model its licence and where it came from. `make stage` writes it, `make verify` and every job read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bettersynth.configuration.pool import Model
from bettersynth.configuration.types import Configuration
from bettersynth.core.digests import counts_in_folder, file_digests, files_below
from bettersynth.core.layout import Layout
from bettersynth.core.model_files import file_problem, folder_problems
from bettersynth.core.publish import read_json
from bettersynth.core.resources import is_whole, resource
from bettersynth.workflow.needs import Needs, configuration_needs, data_files, tokenizers

STAGING = Path("stage")


class Problem(NamedTuple):
    """A file that is not as it was staged, what is wrong with it, and the command that mends it."""

    path: Path
    what: str
    command: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}\n    {self.command}"


class StagedError(RuntimeError):
    """Something that a job would load is not as it was staged."""


def manifest_path(configuration: Configuration) -> Path:
    """Where a configuration's manifest lies, relative to the working directory of every job."""
    return STAGING / f"{configuration.name}.json"


def read_manifest(configuration: Configuration) -> dict[str, Any]:
    """The manifest; one without entries when nothing was staged for this configuration."""
    path = manifest_path(configuration)
    return read_json(path) if path.exists() else {}


def describe(path: str | Path) -> dict[str, Any]:
    """`{name: {size, sha256}}` of the files of a folder (or of one file) that count."""
    path = Path(path)
    digests = {name: sha256 for name, sha256 in file_digests(path).items() if counts_in_folder(name)}
    place = path.parent if path.is_file() else path
    return {name: {"size": (place / name).stat().st_size, "sha256": sha256} for name, sha256 in digests.items()}


def check_folder(path: Path, files: dict[str, Any], command: str) -> Iterator[Problem]:
    """Compare a folder (or one file) with its entry in a manifest; `command` is what puts it right."""
    if not path.exists():
        yield Problem(path, "not there", command)
        return
    place = path.parent if path.is_file() else path
    digests = file_digests(path)
    for name, expected in files.items():
        file = place / name
        if not file.exists():
            yield Problem(file, "not there", command)
        elif digests.get(name) != expected["sha256"]:
            size = file.stat().st_size
            what = file_problem(file) or (
                f"altered: sha256 {digests.get(name, '')[:12]}…, staged as {expected['sha256'][:12]}…"
                if size == expected["size"]
                else f"{size:,} bytes instead of {expected['size']:,}"
            )
            yield Problem(file, what, command)
    for name in digests:
        if counts_in_folder(name) and name not in files:
            yield Problem(place / name, file_problem(place / name) or "was not staged", f"rm '{place / name}'")


def check_unlisted(path: Path, command: str) -> Iterator[Problem]:
    """What is wrong with a model that no manifest lists, as far as its own files tell."""
    if not path.exists():
        yield Problem(path, "not there", command)
        return
    for file in [path] if path.is_file() else files_below(path).values():
        if problem := file_problem(file):
            yield Problem(file, problem, command)


def _mend(config: str | Path) -> str:
    """The command that puts a staged file right, for the shell."""
    return f"make stage CONFIG={config}  # on a machine with a network; then copy it here"


def partial_folder(path: Path) -> Path:
    """Where a model lies while it is fetched; the next try goes on from there."""
    return path.with_name(f".{path.name}.partial")


def _again(path: Path, model: Model, config: str | Path) -> str:
    """The command that puts a listed model right: of what lies in its folder, only what is broken is fetched."""
    if not model.hub:
        return _changed(config)
    return f"mv -T '{path}' '{partial_folder(path)}' && {_mend(config)}" if path.is_dir() else _mend(config)


def _changed(config: str | Path) -> str:
    """What to do about a file that came from no hub."""
    return f"copy it here again; if it was changed on purpose: make stage CONFIG={config}"


def check_needs(needs: Needs, configuration: Configuration, config_file: str | Path) -> Iterator[Problem]:
    """Compare models and resources with the manifest; those that it does not list are looked at by themselves.

    What resources hold is known without a manifest.
    """
    resources = {entry.path: entry for entry in map(resource, needs.resources)}
    light = {Path(configuration.models[name].path) for name in tokenizers(configuration)}
    for path, files, command in _places(needs, configuration, config_file):
        found = list(check_unlisted(path, command) if files is None else check_folder(path, files, command))
        if not found and path.is_dir() and path not in resources:
            found = [Problem(*one, command) for one in folder_problems(path, weights=path not in light)]
        yield from found
        if not found and path in resources and not is_whole(resources[path], path):
            yield Problem(path, "altered: not as its package has it", f"rm -r {path} && make setup")


def missing(needs: Iterable[Needs], configuration: Configuration, config_file: str | Path) -> list[Problem]:
    """Models and resources of which nothing is there, once each; no model is read."""
    places = (place for each in dict.fromkeys(needs) for place in _places(each, configuration, config_file))
    return list(dict.fromkeys(Problem(path, "not there", mend) for path, _, mend in places if not path.exists()))


def missing_words(problems: list[Problem]) -> str:
    """What is said of these before a run."""
    return "\n".join(["Not there yet, and a job that loads it stops at once:", *(f"  {one}" for one in problems)])


def _places(
    needs: Needs, configuration: Configuration, config_file: str | Path
) -> Iterator[tuple[Path, dict[str, Any] | None, str]]:
    """Path of each need, its files as the manifest lists them, and what to do when something is wrong there."""
    manifest, command = read_manifest(configuration), _mend(config_file)
    listed = {**manifest.get("resources", {}), **manifest.get("models", {})}
    paths = {name: resource(name).path for name in needs.resources}
    paths |= {name: Path(configuration.models[name].path) for name in needs.models}
    for name, path in paths.items():
        if name in listed and Path(listed[name]["path"]) == path:
            again = _again(path, configuration.models[name], config_file) if name in needs.models else command
            yield path, listed[name]["files"], again
        elif name in needs.resources or path.exists() or configuration.models[name].hub:
            yield path, None, command
        else:
            yield path, None, f"put the model there, or correct `models.{name}.path` in {config_file}"


def check_everything(
    configuration: Configuration, config_file: str | Path, recipe: str | None = None
) -> Iterator[Problem]:
    """Compare all that a configuration, or one recipe, needs: models, word lists, taggers, data files, staged wheels.

    Where a run was carried to in a bundle, data files that its next jobs do not read are not there, and not missed.
    """
    carried = Layout(Path("results") / str(configuration.name)).is_carried
    manifest = read_manifest(configuration)
    yield from check_needs(configuration_needs(configuration, recipe), configuration, config_file)
    known = manifest.get("data", {})
    for file in data_files(configuration):
        expected = known.get(file)
        mend = _changed(config_file)
        if expected and (Path(file).exists() or not carried):
            yield from check_folder(Path(file), {Path(file).name: expected}, mend)
        elif not Path(file).exists() and not carried:
            yield Problem(Path(file), "not there", "copy it here, or correct its path in the configuration")
    wheels = manifest.get("wheels")
    if wheels and Path(wheels["path"]).exists():  # only setup reads them, and complains of their absence itself
        mend = _mend(f"{config_file} WHEELS={wheels['torch']}")
        yield from check_folder(Path(wheels["path"]), wheels["files"], mend)


def require(problems: Iterable[Problem], who: str) -> None:
    """Raise StagedError with every problem, if there is one."""
    if found := list(problems):
        lines = "\n".join(f"  {problem}" for problem in found)
        raise StagedError(f"{who} does not load what is not as it was staged:\n{lines}")

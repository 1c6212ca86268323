"""Fetch a model from the hub, or take a local copy of it: pinned, compared file by file, safetensors in the end.

The endpoint, a mirror, a proxy, certificates and a token are those of `huggingface_hub` (`HF_ENDPOINT`, `HF_TOKEN`,
`HTTPS_PROXY` …).
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoSibling

from bettersynth.core.commands import make
from bettersynth.core.digests import files_below
from bettersynth.core.model_files import PIPELINE, WEIGHTS, file_problem, folder_problems, unopened_weights
from bettersynth.core.publish import publish_folder, sha256_file
from bettersynth.core.resources import StagingError
from bettersynth.deploy import pickles
from bettersynth.workflow.manifest import partial_folder

COMMIT = re.compile(r"[0-9a-f]{40}")
BESIDE_WEIGHTS = {".json", ".txt", ".model", ".jinja", ".vocab"}
"""Configuration, vocabularies and chat templates."""
OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
TRIES = 3
"""How often a transfer that breaks off, or brings other bytes, goes on."""


class UnreachableError(StagingError):
    """The hub does not answer."""


class HubFile(NamedTuple):
    """A file of a repository: large ones have a sha256, small ones the hash that git gives them."""

    name: str
    size: int
    sha256: str | None
    git_sha1: str | None

    def is_at(self, path: Path) -> bool:
        """Whether the file at `path` has exactly these bytes."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        if self.sha256:
            return sha256_file(path) == self.sha256
        return self.git_sha1 is None or _git_sha1(path) == self.git_sha1


class Snapshot(NamedTuple):
    """What is fetched of a repository at a commit, and the licence its card states."""

    hub: str
    revision: str
    files: tuple[HubFile, ...]
    licence: str

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def look_up(model: str, hub: str, revision: str | None) -> Snapshot:
    """Ask the hub what the repository holds at a commit, or now; StagingError says how to put the entry right."""
    key = f"models.{model}"
    if constants.HF_HUB_OFFLINE:
        raise StagingError(
            f"{key}: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, and this command fetches; jobs are offline by "
            f"themselves: env -u HF_HUB_OFFLINE -u TRANSFORMERS_OFFLINE {make('stage')}"
        )
    try:
        found = HfApi().model_info(hub, revision=revision, files_metadata=True)
    except GatedRepoError as error:
        raise StagingError(f"{key}: {_consent(hub)}") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise StagingError(f"{key}: {hub} at {revision or 'its newest commit'} is not on the hub: {error}") from error
    except (HfHubHTTPError, OSError) as error:
        raise UnreachableError(
            f"{constants.ENDPOINT} did not answer for {key}: {error}\n"
            f"Set HF_ENDPOINT to a mirror, or give local copies: {make('stage', FROM='folder')}"
        ) from error
    files = {entry.rfilename: hub_file(entry) for entry in found.siblings or []}
    if odd := next((name for name in files if not _stays_below(name)), None):
        raise StagingError(f"{key}: {constants.ENDPOINT} lists {odd!r} in {hub}: no name of a file in a folder")
    if not COMMIT.fullmatch(str(found.sha)):
        raise StagingError(f"{key}: {constants.ENDPOINT} names {found.sha!r} for {hub}, which is no commit")
    licence = found.card_data.get("license") if found.card_data else None
    chosen = choose_files(f"{key}: {hub}", files)
    return Snapshot(hub, str(found.sha), tuple(files[name] for name in chosen), str(licence or "not stated"))


def _consent(hub: str) -> str:
    return (
        f"{hub} is given to those only who agreed to its licence: do so on its page, {constants.ENDPOINT}/{hub}, "
        "and set HF_TOKEN to a token of that account"
    )


def hub_file(entry: RepoSibling) -> HubFile:
    """A file as the hub lists it."""
    if entry.lfs:
        return HubFile(entry.rfilename, entry.lfs.size, entry.lfs.sha256, None)
    return HubFile(entry.rfilename, entry.size or 0, None, entry.blob_id)


def _stays_below(name: str) -> bool:
    """Whether a name that the hub gives is one below the folder that the model is put in."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and path.as_posix() == name and name.isprintable()


def choose_files(where: str, names: Iterable[str]) -> list[str]:
    """Of a repository's files, those that `from_pretrained` reads: safetensors, or pickles that become such.

    Raises StagingError where it holds neither.
    """
    folders: dict[str, list[PurePosixPath]] = defaultdict(list)
    everything = sorted(names)
    for name in everything:
        path = PurePosixPath(name)
        folders[path.parent.as_posix()].append(path)
    diffusers = PIPELINE in everything
    chosen: list[PurePosixPath] = []
    problems: list[str] = []
    for folder, paths in folders.items():
        if folder != "." and not (diffusers and "/" not in folder):
            continue
        chosen += [path for path in paths if path.suffix in BESIDE_WEIGHTS and ".index." not in path.name]
        if not (diffusers and folder == "."):  # there, whole pipelines lie in one file each
            weights = _weights(paths)
            pickled = [] if weights else _pickled(paths)
            chosen += weights + pickled
            if not pickled and (problem := unopened_weights([path.name for path in paths])):
                problems.append(f"{where}: {problem if folder == '.' else f'{folder}: {problem}'}")
    if not any(path.suffix in (".safetensors", ".bin") for path in chosen):
        others = [name for name in everything if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack"))]
        raise StagingError(
            f"{where} has no safetensors weights, nor a `pytorch_model.bin` that becomes such (it has "
            f"{', '.join(others) or 'none at all'}), and other pickles are not loaded. {_other_weights()}"
        )
    if problems:
        raise StagingError(f"{problems[0]}. {_other_weights()}")
    return sorted(path.as_posix() for path in chosen)


def _other_weights() -> str:
    convert = "convert it on a machine you trust and give the folder"
    return f"Name a revision that has them, or {convert}: {make('stage', FROM='folder')}"


def _weights(paths: list[PurePosixPath]) -> list[PurePosixPath]:
    """A folder's weights: the file with all of them where there is one, else its parts with their index."""
    found = [(path, match) for path in paths if (match := WEIGHTS.fullmatch(path.name))]
    if whole := [path for path, match in found if not match["number"]]:
        return whole[:1]
    indexes = {f"{match['stem']}.safetensors.index.json" for _, match in found}
    return [path for path, _ in found] + [path for path in paths if path.name in indexes]


def _pickled(paths: list[PurePosixPath]) -> list[PurePosixPath]:
    """A folder's pickled weights: the file with all of them, else its parts with their index."""
    found = [(path, match) for path in paths if (match := pickles.PICKLED.fullmatch(path.name))]
    whole = [path for path, match in found if not match["part"] and not match["index"]]
    return whole[:1] or [path for path, _ in found]


def fetch(snapshot: Snapshot, path: Path) -> None:
    """Put the snapshot at `path`. What is there already of an earlier try, whole or half, is not fetched again."""
    partial = partial_folder(path)
    for _ in range(TRIES):
        wanted = missing(snapshot, partial)
        if not wanted:
            break
        for name in wanted:
            (partial / name).unlink(missing_ok=True)
        broken = _transfer(snapshot, wanted, partial)
    if bad := missing(snapshot, partial):
        what = f"the transfer broke off: {broken}" if broken else "other bytes than the hub states"
        raise StagingError(
            f"{snapshot.hub}: {', '.join(bad)}: {what}, {TRIES} times. Nothing was put at {path}; what has come "
            f"is kept, and `{make('stage')}` goes on from there. Another mirror: HF_ENDPOINT=…"
        )
    shutil.rmtree(partial / ".cache", ignore_errors=True)  # the client's own notes, to resume from
    _make_safe(partial, f"{snapshot.hub} at {snapshot.revision}")
    check(partial, f"{snapshot.hub} at {snapshot.revision}")
    if weights := open_clip_weights(partial):
        _convert(weights, path)
        shutil.rmtree(partial)
    else:
        partial.replace(path)


def _transfer(snapshot: Snapshot, wanted: list[str], partial: Path) -> OSError | None:
    """Fetch files; an error of the network is returned, for another try."""
    if find_spec("hf_transfer") is None:
        constants.HF_HUB_ENABLE_HF_TRANSFER = False  # asked for in the environment, it would only be faster
    try:
        snapshot_download(
            snapshot.hub, revision=snapshot.revision, local_dir=partial, allow_patterns=wanted, max_workers=4
        )
    except GatedRepoError as error:
        raise StagingError(_consent(snapshot.hub)) from error
    except OSError as error:  # requests' errors are
        return error
    return None


def copy(folder: Path, path: Path) -> None:
    """Put a local copy of a model at `path`: the files that `from_pretrained` reads, looked at first."""
    names = choose_files(str(folder), files_below(folder))
    safe = [name for name in names if not pickles.PICKLED.fullmatch(PurePosixPath(name).name)]
    check(folder, str(folder), safe, weights=False)
    if weights := open_clip_weights(folder):
        _convert(weights, path)
        return
    with publish_folder(path) as temporary:
        for name in names:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, temporary / name)
        _make_safe(temporary, str(folder))
        check(temporary, str(folder))


def _make_safe(folder: Path, where: str) -> None:
    """Write pickled weights as safetensors, and say so."""
    for line in pickles.convert(folder, where):
        print(line, flush=True)


def open_clip_weights(folder: Path) -> Path | None:
    """OpenCLIP's weights, if the folder holds a model of OpenCLIP's and not one of transformers'."""
    return next((folder / name for name in OPEN_CLIP if (folder / name).exists()), None)


def _convert(weights: Path, path: Path) -> None:
    """Put OpenCLIP's ConvNeXt at `path` as transformers opens it: MGM's second vision tower."""
    from bettersynth.runtime.patches.weights import WeightsError
    from bettersynth.training.mgm.published import convert_open_clip

    try:
        convert_open_clip(weights, path)
    except WeightsError as error:
        raise StagingError(f"{error}; of OpenCLIP's models, only ConvNeXt is converted") from error


def check(folder: Path, where: str, names: Iterable[str] | None = None, *, weights: bool = True) -> None:
    """Raise StagingError for a file of the folder that must not be, or cannot be, loaded, and for one not there.

    Without `weights` it may be of a tokenizer alone.
    """
    for name in names if names is not None else files_below(folder):
        if problem := file_problem(folder / name):
            raise StagingError(f"{where}: {name}: {problem}")
    if not open_clip_weights(folder):
        for path, problem in folder_problems(folder, weights=weights):
            raise StagingError(f"{where}: {path.relative_to(folder)}: {problem}")


def missing(snapshot: Snapshot, folder: Path) -> list[str]:
    """Files of the snapshot that are not in the folder, byte for byte, or as the safetensors that they became."""
    places = [(file, folder / file.name) for file in snapshot.files]
    return [file.name for file, at in places if not (file.is_at(at) or pickles.stands_for(at, file.sha256))]


def local_copy(folder: Path, name: str, hub: str | None) -> Path | None:
    """The folder's copy of a model: named for its repository, with or without its owner, or as in `models`."""
    names = [hub, hub.rpartition("/")[2], name] if hub else [name]
    return next((folder / candidate for candidate in names if (folder / candidate).is_dir()), None)


def _git_sha1(path: Path) -> str:
    """The hash under which git keeps a file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

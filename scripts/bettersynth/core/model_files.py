"""What is wrong with a model's files, as far as they themselves tell: pickles, pointers, halves, parts not there."""

from __future__ import annotations

import re
import zipfile
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from bettersynth.core.publish import read_json

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
PICKLE_NAMES = {".pkl", ".pickle", ".pt", ".pth", ".ckpt"}
MOST_HEADER_BYTES = 16_000_000
"""A longer header is a lie: it takes some hundred bytes for each tensor."""

PIPELINE = "model_index.json"
"""What makes a folder one of diffusers: the classes of its parts, each in a folder of its name."""
WEIGHTS = re.compile(
    r"(?P<stem>(diffusion_pytorch_|open_clip_|open_clip_pytorch_)?model)"
    r"(-(?P<number>\d{5})-of-(?P<count>\d{5}))?\.safetensors"
)
"""Weights that `from_pretrained` opens by default; variants (`model.fp16.safetensors`) it does not."""
OTHER_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack"}
WITHOUT_WEIGHTS = re.compile(r"(Tokenizer|Scheduler|Processor|FeatureExtractor)(Fast)?$")
"""Classes of a pipeline's parts that have none."""


def file_problem(path: Path) -> str | None:
    """Why a model file must not be, or cannot be, loaded; None when nothing is wrong with it. Reads no tensors."""
    with path.open("rb") as file:
        head = file.read(len(LFS_POINTER))
    if head.startswith(LFS_POINTER):
        return "a Git LFS pointer, not the file it stands for"
    if path.suffix in PICKLE_NAMES or _is_pickle(path, head):
        return "a pickle, which runs whatever code is in it; only safetensors are loaded"
    if path.suffix == ".py" and path.parent.name == "custom_generate":
        return "a program, which transformers would run in place of its own; no model's is run"
    if path.suffix == ".incomplete":
        return "a transfer that broke off"
    if path.suffix == ".safetensors":
        return _safetensors_problem(path)
    return None


def _is_pickle(path: Path, head: bytes) -> bool:
    """Whether it is a pickle of protocol 2 or later, or PyTorch's zip around one."""
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    if not head.startswith(b"PK\x03\x04") or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("data.pkl") for name in archive.namelist())


def _safetensors_problem(path: Path) -> str | None:
    """What is wrong with the header's length, with the header, and with the places of tensors that it gives."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MOST_HEADER_BYTES:
        return f"no safetensors file: its header would be {length:,} bytes long"
    if size < 8 + length:
        return f"cut short: {size:,} bytes, less than its header"
    try:
        with safe_open(path, "np"):
            return None
    except SafetensorError as error:  # it compares tensors with each other and with the file's length
        return f"{size:,} bytes that its header does not tell of, so cut short, added to or made up: {error}"


def folder_problems(folder: Path, *, weights: bool = True) -> Iterator[tuple[Path, str]]:
    """Of a model's folder, what its index and its class open and what is not there, or not whole. Reads no tensors.

    Without `weights` it may be of a tokenizer alone. Folders of other libraries (spaCy) are only asked for files.
    """
    if not any(folder.iterdir()):
        yield folder, "empty: no model is in it"
    elif (folder / PIPELINE).is_file():
        yield from _part_problems(folder, read_json(folder / PIPELINE))
    elif (folder / "config.json").is_file():
        yield from _weight_problems(folder, "model", weights)


def _part_problems(folder: Path, index: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    for part, kind in index.items():
        if part.startswith("_") or not isinstance(kind, list) or None in kind:
            continue
        library, name = kind
        place = folder / part
        if not place.is_dir() or not any(place.iterdir()):
            yield place, f"not there, and {PIPELINE} has it as {name}"
        elif not WITHOUT_WEIGHTS.search(name):
            if not (place / "config.json").is_file():
                yield place / "config.json", f"not there, and {name} is opened by it"
            yield from _weight_problems(place, "diffusion_pytorch_model" if library == "diffusers" else "model", True)


def _weight_problems(folder: Path, stem: str, needed: bool) -> Iterator[tuple[Path, str]]:
    names = [path.name for path in folder.iterdir()]
    if problem := unopened_weights(names, stem):
        yield folder, problem
    elif (index := folder / f"{stem}.safetensors.index.json").is_file() and f"{stem}.safetensors" not in names:
        yield from _shard_problems(index)
    elif needed and f"{stem}.safetensors" not in names:
        yield folder, f"no weights: no {stem}.safetensors"


def unopened_weights(names: Collection[str], stem: str = "") -> str | None:
    """Why the weights among a folder's files are not those that `from_pretrained` opens; None when there are none.

    They are of that stem, where it is given.
    """
    found = [match for name in names if (match := WEIGHTS.fullmatch(name)) and stem in ("", match["stem"])]
    if any(match["number"] is None for match in found):
        return None
    if not found and any(name.endswith(f"{stem or 'model'}.safetensors.index.json") for name in names):
        return None  # whose shards have names of their own
    if not found:
        others = sorted(name for name in names if Path(name).suffix in OTHER_WEIGHTS)
        return f"only {', '.join(others)}, which is not opened: no {stem or 'model'}.safetensors" if others else None
    stem, count = found[0]["stem"], found[0]["count"]
    shards = {f"{stem}-{number:05d}-of-{count}.safetensors" for number in range(1, int(count) + 1)}
    lost = sorted({*shards, f"{stem}.safetensors.index.json"} - set(names))
    return f"not whole: {', '.join(lost)} not there" if lost else None


def _shard_problems(index: Path) -> Iterator[tuple[Path, str]]:
    """What the shards that an index names lack of the weights that it places in each."""
    placed = defaultdict(set)
    for weight, name in read_json(index)["weight_map"].items():
        placed[name].add(weight)
    for name, weights in sorted(placed.items()):
        shard = index.with_name(name)
        if not shard.is_file():
            yield shard, f"not there, and {index.name} names it"
        elif file_problem(shard) is None:
            with safe_open(shard, "np") as file:
                lost = sorted(weights - set(file.keys()))
            if lost:
                yield shard, f"{len(lost)} weights that {index.name} places in it are not in it, first {lost[0]}"

"""What is wrong with a model's files, as far as the files themselves tell: pickles, pointers, halves."""

from __future__ import annotations

import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
PICKLE_NAMES = {".pkl", ".pickle", ".pt", ".pth", ".ckpt"}
MOST_HEADER_BYTES = 16_000_000
"""A longer header is a lie: it takes some hundred bytes for each tensor."""


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

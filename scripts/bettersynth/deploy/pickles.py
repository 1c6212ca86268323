"""Weights that a repository has as PyTorch's pickles only, written as safetensors while they are staged.

They are opened in a process of its own that reaches no other machine, by PyTorch's `weights_only`, which makes tensors
and runs nothing. `converted.json` beside the weights keeps the sha256 of both.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bettersynth.core.publish import publish, read_json, sha256_file, write_json
from bettersynth.core.resources import StagingError

PICKLED = re.compile(r"(?P<stem>(diffusion_)?pytorch_model)(?P<part>-\d{5}-of-\d{5})?\.bin(?P<index>\.index\.json)?")
"""Weights that `from_pretrained` opened before there were safetensors, and the index of those in parts."""
RECORD = "converted.json"
FORMAT = {"format": "pt"}
"""What transformers looks for in the header."""
NEW_NETWORK, NEW_USER = 0x40000000, 0x10000000
"""`CLONE_NEWNET` and `CLONE_NEWUSER` of Linux."""


def safe_name(name: str) -> str:
    """What the weights of a pickle are called as safetensors: `pytorch_model.bin` becomes `model.safetensors`."""
    match = PICKLED.fullmatch(name)
    assert match is not None, name
    stem = match["stem"] if match[2] else "model"
    return f"{stem}{match['part'] or ''}.safetensors{match['index'] or ''}"


def convert(folder: Path, where: str) -> list[str]:
    """Write all pickled weights below the folder as safetensors and remove them; returns a line for each.

    Raises StagingError, with the file, when one is no such pickle.
    """
    pickled = sorted(path for path in folder.rglob("*.bin") if PICKLED.fullmatch(path.name))
    if not pickled:
        return []
    command = [sys.executable, "-m", __name__, *map(str, pickled)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StagingError(f"{where}: {done.stderr.strip().splitlines()[-1]}")
    lines = []
    for path in pickled:
        written = path.with_name(safe_name(path.name))
        facts = {"from": path.name, "from_sha256": sha256_file(path), "sha256": sha256_file(written)}
        write_json(path.with_name(RECORD), {**converted(path.parent), written.name: facts})
        path.unlink()
        lines.append(f"{where}: {path.name} (sha256 {facts['from_sha256']}) is now {written.name} ({facts['sha256']})")
    for index in folder.rglob("*.bin.index.json"):
        content = read_json(index)
        content["weight_map"] = {weight: safe_name(name) for weight, name in content["weight_map"].items()}
        write_json(index.with_name(safe_name(index.name)), content)
        index.unlink()
    return lines


def converted(folder: Path) -> dict[str, dict[str, str]]:
    """What the folder's record says: safetensors file → `from`, `from_sha256` and its own `sha256`."""
    record = folder / RECORD
    return read_json(record) if record.is_file() else {}


def stands_for(path: Path, sha256: str | None) -> bool:
    """Whether a pickle that the hub has with this sha256 lies there as safetensors, as it was written."""
    if not PICKLED.fullmatch(path.name):
        return False
    written = path.with_name(safe_name(path.name))
    if path.name.endswith(".json"):
        return written.is_file()
    facts = converted(path.parent).get(written.name, {})
    return written.is_file() and facts.get("from_sha256") == sha256 and facts.get("sha256") == sha256_file(written)


def _leave_the_network() -> None:
    """Have no network: neither by the kernel, where it lets us, nor by the interpreter."""
    from bettersynth.runtime.network import forbid_network

    unshare = getattr(ctypes.CDLL(None), "unshare", None)
    if unshare is not None and unshare(NEW_NETWORK):
        unshare(NEW_NETWORK | NEW_USER)
    forbid_network("converting weights")


def _write(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling fails in many ways on what is no state dict; all mean the same here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SystemExit(f"{path.name}: not converted, for it holds more than weights, or is none: {reason}") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise SystemExit(f"{path.name}: not converted, for it holds other things than tensors by name")
    own = {name: value.detach().contiguous() for name, value in state.items()}
    if _share(own.values()):
        own = {name: value.clone() for name, value in own.items()}
    with publish(path.with_name(safe_name(path.name))) as temporary:
        save_file(own, temporary, FORMAT)


def _share(tensors: Iterable[Any]) -> bool:
    """Whether any two lie in the same memory, which safetensors does not write."""
    places = [tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()]
    return len(set(places)) < len(places)


if __name__ == "__main__":
    _leave_the_network()
    for given in sys.argv[1:]:
        _write(Path(given))

"""Identities of models: what tells a graph that scores, captions or trainings come from another model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bettersynth.configuration.pool import Model
from bettersynth.core.digests import counts_in_folder, files_below, model_identity
from bettersynth.core.publish import read_json, sha256_bytes, sha256_json, where_allowed, write_json

SAMPLE_BYTES = 1 << 20


def model_identities(models: Mapping[str, Model], store: Path) -> dict[str, str]:
    """Name → identity of every model: the sha256 of its contents, as `model_identity` takes it.

    `store` is JSON: name → `[path, identity]`, and `@<sha256>` → the older identity that stands for these contents. A
    model whose folder is not on this machine keeps the identity it last had there; one never seen here has none.
    """
    known: dict[str, Any] = read_json(store) if store.exists() else {}
    remembered = dict(known)
    for name, model in models.items():
        last = known.get(name, [None, None])
        sha256 = model_identity(model.path)
        if sha256 and f"@{sha256}" not in remembered and sha256 != last[1]:
            remembered |= _sampled_before(model.path, sha256, known)
        identity = remembered.get(f"@{sha256}", sha256) if sha256 else last[1] if last[0] == model.path else None
        remembered.pop(name, None)
        if identity:
            remembered[name] = [model.path, identity]
    remembered = {name: entry for name, entry in remembered.items() if name in models or name.startswith("@")}
    if remembered != known:
        with where_allowed():
            write_json(store, remembered)
    return {name: remembered[name][1] for name in models if name in remembered}


def _sampled_before(path: str, sha256: str, known: Mapping[str, Any]) -> dict[str, str]:
    """The identity that an earlier version gave this model, if its results came from it: nothing is scored again.

    That version looked at names, sizes, and the first and last MiB of every file.
    """
    files = {".": Path(path)} if Path(path).is_file() else files_below(Path(path))
    counted = [[name, *_ends(file)] for name, file in files.items() if name == "." or counts_in_folder(name)]
    identity = sha256_json(counted)
    taken = {entry for name, entry in known.items() if name.startswith("@")}
    earlier = {entry[1] for name, entry in known.items() if not name.startswith("@")}
    return {f"@{sha256}": identity} if identity in earlier - taken else {}


def _ends(path: Path) -> list[Any]:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(SAMPLE_BYTES)
        file.seek(max(size - SAMPLE_BYTES, 0))
        return [size, sha256_bytes(head + file.read(SAMPLE_BYTES))]

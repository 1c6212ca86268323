"""What has to be the same after a mishap: every file of a run's results, but for what clocks and places decide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bettersynth.core.publish import sha256_bytes, sha256_json

CLOCKS = {"seconds", "seconds_by_part", "steady", "rate", "samples_per_second", "stopped_hours", "time", "reused"}
"""Keys of cards and records that say how a run went, and differ from one to the next."""
SEALS = {"seal", "files"}
"""Keys with digests of these, and of files that are compared themselves."""
REMEMBERED = {"configuration.json", "inputs.json", "models.json", "pool/digests.json", "pool/images.json"}
"""What is remembered of inputs, with their times and places."""
TIMED = {"report/index.html"}
"""A page that states hours: only that it is there can be compared."""
NAMED_BY_TIME = "report/tensorboard/"


def data_of(results: Path) -> dict[str, str]:
    """The digest of each file below a results folder by its path; of JSON objects and lines without their times."""
    found = sorted(path for path in results.rglob("*") if path.is_file() and "leases" not in path.parts)
    place = results.resolve().parents[1]
    places = [str(place).encode(), str((place / "data").resolve().parent).encode()]
    by_name = {path.relative_to(results).as_posix(): path for path in found}
    return {
        name: "there" if name in TIMED else _digest(path, places)
        for name, path in by_name.items()
        if name not in REMEMBERED and not name.startswith(NAMED_BY_TIME)
    }


def leftovers(results: Path) -> list[Path]:
    """Temporary files that somebody left."""
    return [path for path in results.rglob(".*") if ".tmp" in path.name or path.name.endswith(".mode")]


def _digest(path: Path, places: list[bytes]) -> str:
    content = path.read_bytes()
    if path.suffix in (".json", ".jsonl"):
        for place in places:
            content = content.replace(place, b"")
    if path.suffix == ".json":
        return sha256_json(_timeless(json.loads(content)))
    if path.name == "history.jsonl":
        return sha256_json([_timeless(json.loads(line)) for line in content.splitlines()])
    return sha256_bytes(content)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(part) for key, part in value.items() if key not in CLOCKS | SEALS}
    return [_timeless(part) for part in value] if isinstance(value, list) else value

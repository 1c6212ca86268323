"""Where the files of a bundle belong: what it may bring, and what of it runs here."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from binascii import Error
from enum import StrEnum
from importlib.machinery import all_suffixes
from pathlib import Path, PurePosixPath

from bettersynth.core.layout import Layout
from bettersynth.workflow.manifest import STAGING

CODE_PARTS = ("Snakefile", "Makefile", "rules", "scripts", "profiles", "slurm", "envs")
OTHER_PARTS = ("config", "tests", "bench", "miniature", "docs", "results", "logs", "benchmarks", "stage")
"""What else a checkout holds that is no data of a run."""
METADATA = Path(".snakemake") / "metadata"
IMPORTED = frozenset(all_suffixes())
"""Endings of what Python imports: this folder is on its path."""
DATA = frozenset({".json", ".jsonl", ".parquet", ".tsv", ".csv", ".txt", ".gz", ".bz2", ".xz", ".zst", ".tar", ".zip"})
"""Endings of data that lie in no folder, where `make`, Snakemake and others look for their own files."""


class Place(StrEnum):
    """What a file of a bundle is, by its name."""

    RESULT = "result"
    LOG = "log"
    RECORD = "record of Snakemake"
    DATA = "data"
    CODE = "code"
    CONFIGURATION = "configuration"


COMES_HOME = frozenset({Place.RESULT, Place.LOG, Place.RECORD})
"""What a bundle of results may hold."""
RUNS = frozenset({Place.CODE, Place.CONFIGURATION})
"""What decides which programs are run."""


def place(name: str, layout: Layout, config_file: str | None = None) -> Place | None:
    """Where a file belongs that goes along with the results `layout`; None when it belongs nowhere."""
    path = PurePosixPath(name)
    if path.is_relative_to(METADATA.as_posix()):
        output = recorded_output(path.relative_to(METADATA.as_posix()))
        return Place.RECORD if output and place(output, layout) is Place.RESULT else None
    if any(part.startswith(".") for part in path.parts):
        return None
    if name == config_file and path.suffix in (".yaml", ".yml") and path.parts[0] not in CODE_PARTS:
        return Place.CONFIGURATION
    if path.parts[0] in CODE_PARTS:
        return Place.CODE
    if IMPORTED.intersection(suffix.lower() for suffix in path.suffixes):
        return None
    if layout.holds(Path(name)):
        return Place.RESULT
    if _is_log(path, layout):
        return Place.LOG
    return Place.DATA if _is_data(path) or name == (STAGING / f"{layout.root.name}.json").as_posix() else None


def recorded_output(record: PurePosixPath) -> str | None:
    """The output that Snakemake keeps this record of, by the record's name; None when it is no such name."""
    *folders, last = record.parts or ("",)
    try:
        return urlsafe_b64decode("".join(folder[1:] for folder in folders) + last).decode()
    except (Error, ValueError):
        return None


def _is_log(path: PurePosixPath, layout: Layout) -> bool:
    ends = {".log": layout.logs, ".tsv": layout.benchmarks}
    return path.suffix in ends and path.is_relative_to(ends[path.suffix].as_posix())


def _is_data(path: PurePosixPath) -> bool:
    if len(path.parts) == 1:
        return path.suffix.lower() in DATA
    first = path.parts[0].lower()
    taken = {part.lower() for part in (*CODE_PARTS, *OTHER_PARTS)}
    return first not in taken and not first.endswith((".dist-info", ".egg-info"))

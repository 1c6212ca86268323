"""What a path holds that nobody has configured yet: pairs of which kind, how many, and a look at the first of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bettersynth.configuration.pool import USUAL, Pool
from bettersynth.configuration.storage import Contents, expand, folder_of, is_archive, storage_of
from bettersynth.core.errors import PersonError
from bettersynth.core.image_paths import ImageProblem
from bettersynth.core.raw import RecordProblem
from bettersynth.core.records import Record, caption_of
from bettersynth.pool.images import check_image
from bettersynth.workflow.archives import is_there
from bettersynth.workflow.roots import Roots, containers, roots_of

LOOKED_AT = 200
"""Pairs that are looked at."""
COUNTED = 8
"""Archives whose records are counted; beyond, their mean stands for the others."""
LINES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".jsonl.zst", ".json.zst")
PICTURES = (".jpg", ".jpeg", ".png", ".webp")


class HoldingsError(PersonError):
    """A path of which no pool can be made; the message says why, and what to do."""


class Holdings(NamedTuple):
    """What was found."""

    form: str
    """In words."""
    pattern: str
    keys: dict[str, str]
    """How the entry in `pool.files` says where a record's parts are."""
    images: list[str]
    """What `pool.images` has to name; empty where the files hold their pictures."""
    files: int
    records: int
    is_counted: bool
    """Whether all of the files were counted."""
    fields: tuple[str, ...]
    captions: list[str]
    """Those of the pairs that were looked at."""
    sizes: list[tuple[int, int]]
    """Width and height of their pictures."""
    problems: Counter[str]
    """Why pairs among them would be quarantined."""

    @property
    def words(self) -> list[int]:
        """Words of the captions, in order of size."""
        return sorted(len(caption.split()) for caption in self.captions)

    @property
    def shards(self) -> int:
        """A thousand records to a shard, about."""
        return max(1, min(9999, round(self.records / 1000)))

    def lines(self) -> Iterator[str]:
        """What was found, for a person."""
        about = "" if self.is_counted else "about "
        yield f"{self.pattern}: {self.form}, {self.files:,} file{'s' * (self.files > 1)}, {about}{self.records:,} pairs"
        yield f"a pair has: {', '.join(self.fields)}"
        if self.images:
            yield f"its pictures are looked for in {', '.join(self.images)}"
        if self.captions:
            words = self.words
            yield f"captions of {words[0]} to {words[-1]} words, half of them of {median(words):g} at most, such as:"
            yield from (f"  {caption[:100]}" for caption in self.captions[:3])
        if self.sizes:
            wide, high = (sorted(side) for side in zip(*self.sizes, strict=True))
            middle = f"{median(wide):g} × {median(high):g}"
            yield f"pictures of {wide[0]}-{wide[-1]} × {high[0]}-{high[-1]} pixels, median {middle}"
        for reason, count in self.problems.most_common(3):
            yield f"of the first {LOOKED_AT}, {count} would be quarantined: {reason}"


def look_into(path: str, given: dict[str, str], images: list[str]) -> Holdings:
    """Look at a file, a folder or a pattern; keys and places of images that are given count before what is found.

    Raises HoldingsError.
    """
    pattern = _pattern(path)
    files = expand(pattern)
    absent = [file for file in files if not Path(file).is_file()]
    if absent or not files:
        raise HoldingsError(f"{absent[0] if absent else pattern}: no such file")
    storage = storage_of(files[0])
    try:
        if problem := storage.problem(Path(files[0])):
            raise HoldingsError(problem)
        looked_at = [storage.contents(Path(file)) for file in _some(files)]
        keys = {**looked_at[0].keys, **given}
        keys = {**_ids_that_come_twice(files, keys), **keys}
        images = images or ([] if storage.holds_pictures else _places_of(files, keys))
        pool = Pool.model_validate({"files": [{"name": "raw", "path": pattern, **keys}], "images": images or None})
        captions, sizes, problems = _pairs(pool)
    except (OSError, ValueError) as error:
        raise HoldingsError(f"{pattern}: {error}") from error
    counted = len(looked_at) == len(files)
    records = sum(each.records for each in looked_at)
    return Holdings(
        storage.form,
        pattern,
        keys,
        images,
        len(files),
        records if counted else round(records / len(looked_at) * len(files)),
        counted,
        _fields(looked_at),
        captions,
        sizes,
        problems,
    )


def _pattern(path: str) -> str:
    """The files that a folder holds, as one pattern; a file or a pattern as it is."""
    folder = Path(path)
    if not folder.is_dir():
        return path
    for ending in (".tar", ".parquet"):
        for below in ("", "*/"):
            first = next(iter(sorted(folder.glob(f"{below}*{ending}"))), None)
            if first and _has_pictures(first):
                return os.path.join(path, f"{below}*{ending}")  # noqa: PTH118 - a pattern
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(LINES))
    if len(names) == 1:
        return str(folder / names[0])
    if names:
        raise HoldingsError(f"{path}: holds several files of lines; name one: {', '.join(names[:5])}")
    if any(entry.suffix.lower() in PICTURES for entry in islice(folder.rglob("*"), 10_000)):
        raise HoldingsError(
            f"{path}: single pictures without a file that lists them. With captions beside them (a.jpg, a.txt) one tar "
            f"is WebDataset: tar --sort=name -cf {folder.name}.tar -C {path} ."
        )
    raise HoldingsError(f"{path}: holds no .tar, .parquet, .jsonl or .json files")


def _has_pictures(path: Path) -> bool:
    """Whether an archive holds pairs, not what was noted of them."""
    try:
        entry = {"name": "raw", "path": str(path), **storage_of(path).contents(path).keys}
        pool = Pool.model_validate({"files": [entry]})
        return any(isinstance(record, Record) for record in _records(pool))
    except (OSError, ValueError):
        return False


def _some(files: Sequence[str]) -> list[str]:
    """Few of the files, spread over all."""
    step = max(1, -(-len(files) // COUNTED))
    return list(files[::step])


def _fields(looked_at: Sequence[Contents]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(field for each in looked_at for field in each.fields))


def _ids_that_come_twice(files: Sequence[str], keys: dict[str, str]) -> dict[str, str]:
    """`id: hash` where archives begin their keys anew."""
    if len(files) < 2 or not storage_of(files[0]).holds_pictures:
        return {}
    first, second = (set(_ids(file, keys)) for file in files[:2])
    return {"id": "hash"} if first & second else {}


def _ids(path: str, keys: dict[str, str]) -> Iterator[str]:
    pool = Pool.model_validate({"files": [{"name": "raw", "path": path, **keys}]})
    return (record.id for record in _records(pool) if isinstance(record, Record))


def _records(pool: Pool) -> Iterator[Record | RecordProblem]:
    file = pool.files[0]
    for line in islice(storage_of(file.path).lines(file, containers(pool, file)), LOOKED_AT):
        if line.raw.strip():
            try:
                yield line.record()
            except RecordProblem as problem:
                yield problem


def _places_of(files: Sequence[str], keys: dict[str, str]) -> list[str]:
    """Folder or archive in which most of the first pictures are found. Raises HoldingsError where none are."""
    folder = folder_of(files[0])
    entry = {"name": "raw", "path": files[0], **keys}
    found = _records(Pool.model_validate({"files": [entry], "images": folder}))
    names = [image for record in found if isinstance(record, Record) for image in record.images]
    beside = sorted(Path(folder).iterdir())
    candidates = [folder, *(str(path) for path in beside if path.is_dir() or is_archive(path))]
    hits = {place: sum(map(is_there, map(Roots([place]).at, names))) for place in candidates}
    best = max(candidates, key=lambda place: hits[place])
    if names and not hits[best]:
        raise HoldingsError(
            f"{files[0]}: its pictures, such as {names[0]}, are in none of {', '.join(candidates[:6])}; say where they "
            "are by IMAGES=…"
        )
    return [best]


def _pairs(pool: Pool) -> tuple[list[str], list[tuple[int, int]], Counter[str]]:
    """Captions, sizes of pictures, and reasons for quarantine among the first pairs."""
    roots = roots_of(pool)
    captions: list[str] = []
    sizes: list[tuple[int, int]] = []
    problems: Counter[str] = Counter()
    for record in _records(pool):
        if isinstance(record, RecordProblem):
            problems[f"{record.reason} ({record.detail})" if not captions else str(record.reason)] += 1
            continue
        captions.append(caption_of(record.text))
        try:
            sizes += [check_image(roots.resolve(image), USUAL) for image in record.images]
        except ImageProblem as problem:
            problems[str(problem.reason)] += 1
    return captions, sizes, problems

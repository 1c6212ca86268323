"""WebDataset's samples as records: what lies in a run of files whose names begin alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import orjson

from bettersynth.configuration.pool import PoolFile
from bettersynth.configuration.storage import ArchiveError, Container, Contents, Member, MemberError
from bettersynth.core.raw import RawLine, Reason, RecordProblem
from bettersynth.core.records import IMAGE_TOKEN, text_of
from bettersynth.workflow.archives import Archive, archive

PICTURES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})
"""Extensions of pictures; a sample with several has `0.jpg`, `1.jpg`, …."""
CAPTIONS = ("caption", "text", "TEXT", "alt_text", "title")
"""Keys of a sample's .json that are looked for where there is no .txt, in this order."""
LOOKED_INTO = 100
"""Samples whose extensions a first look notes."""
MOST_TEXT = 1 << 24
"""Bytes of the longest caption or .json that is read."""
_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)")
"""What begins a sample's names, up to the first dot, and the extension after it; files of other names are in none."""


def sample_lines(file: PoolFile, containers: Iterable[Container]) -> Iterator[RawLine]:
    """Each sample as a line of Data-Juicer's form."""
    number = 0
    for container in containers:
        opened = archive(container.path)
        for key, sample in groupby(_parts(opened), key=itemgetter(0)):
            number += 1
            yield _line(number, key, {extension: member for _, extension, member in sample}, file, container, opened)


def sample_contents(path: Path) -> Contents:
    """Number of samples, what the first of them have, and where their captions are."""
    opened = archive(path)
    samples = [list(sample) for _, sample in groupby(_parts(opened), key=itemgetter(0))]
    if not samples:
        raise ArchiveError(f"{path}: holds no samples, files whose names have a key and an extension")
    first = {extension: member for _, extension, member in samples[0]}
    extensions = dict.fromkeys(extension for sample in samples[:LOOKED_INTO] for _, extension, _ in sample)
    inside: tuple[str, ...] = ()
    with suppress(RecordProblem, ValueError, AttributeError):
        inside = tuple(orjson.loads(_read_text(first["json"], opened, str(path))) if "json" in first else ())
    keys = {}
    if "txt" not in first:
        caption = next((f"json.{key}" for key in CAPTIONS if key in inside), None)
        caption = caption or next((extension for extension in first if extension in ("caption", "cap", "text")), None)
        keys = {} if caption is None else {"caption": caption}
    return Contents(len(samples), (*extensions, *(f"json.{key}" for key in inside)), keys)


def _parts(opened: Archive) -> Iterator[tuple[str, str, Member]]:
    """Key, extension and member of every file that is a sample's, in order."""
    for member in opened.members():
        if found := _NAME.fullmatch(member.name):
            yield found[1], found[2].lower(), member


def _line(
    number: int, key: str, parts: dict[str, Member], file: PoolFile, container: Container, opened: Archive
) -> RawLine:
    pictures = sorted((extension for extension in parts if _is_picture(extension, file.image)), key=_place)
    line: dict[str, Any] = {
        "id": key,
        "text": None,
        "images": [f"{container.name}/{parts[extension].name}" for extension in pictures],
        "sample": f"{container.path}: {key}",
    }
    problem = None
    try:
        for member in parts.values():
            if member.problem:
                raise RecordProblem(Reason.MEMBER, f"{container.path}: its member {member.name} {member.problem}")
        if not pictures:
            raise RecordProblem(Reason.NO_IMAGES, f"{line['sample']}: no picture among {', '.join(sorted(parts))}")
        caption = _part(file.caption or "txt", parts, opened, line["sample"], Reason.NO_TEXT)
        line["text"] = _text(caption, len(pictures))
        line["id"] = _id(file.id or "key", key, parts, opened, line["sample"])
    except RecordProblem as found:
        problem = found
    return RawLine(number, _dumped(line), problem)


def _is_picture(extension: str, wanted: str | None) -> bool:
    before, _, last = extension.rpartition(".")
    if wanted is None:
        return last in PICTURES and (not before or before.isdecimal())
    return extension == wanted.lower().removeprefix(".")


def _place(extension: str) -> tuple[int, str]:
    before = extension.partition(".")[0]
    return int(before) if before.isdecimal() else 0, extension


def _text(caption: Any, pictures: int) -> Any:
    if not isinstance(caption, str):
        return caption  # the reading of the line says what is wrong
    return (
        text_of(caption.strip())
        if pictures == 1
        else " ".join([IMAGE_TOKEN] * (pictures - 1)) + text_of(caption.strip())
    )


def _id(where: str, key: str, parts: dict[str, Member], opened: Archive, sample: str) -> Any:
    if where == "key":
        return key
    return None if where == "hash" else _part(where, parts, opened, sample, Reason.ODD_ID)


def _part(where: str, parts: dict[str, Member], opened: Archive, sample: str, reason: Reason) -> Any:
    """A file's text, or the value of a key of the sample's JSON: `txt`, `json.caption`. Raises RecordProblem."""
    extension, *keys = [where.removeprefix(".")] if where.removeprefix(".") in parts else where.split(".")
    if extension not in parts:
        raise RecordProblem(reason, f"{sample}: no .{extension} among {', '.join(sorted(parts))}")
    text = _read_text(parts[extension], opened, sample)
    if not keys:
        return text
    try:
        value = orjson.loads(text)
        for key in keys:
            value = value[key]
    except (ValueError, LookupError, TypeError) as error:
        raise RecordProblem(reason, f"{sample}: its .{extension} has no {'.'.join(keys)} ({error})") from None
    return value


def _read_text(member: Member, opened: Archive, sample: str) -> str:
    if member.place[-1] > MOST_TEXT:
        raise RecordProblem(Reason.LONG_CAPTION, f"{sample}: {member.name} has {member.place[-1]:,} bytes")
    try:
        return opened.read(member).decode()
    except UnicodeDecodeError as error:
        raise RecordProblem(Reason.ENCODING, f"{sample}: {member.name}: {error}") from None
    except MemberError as error:
        raise RecordProblem(Reason.MEMBER, str(error)) from None


def _dumped(line: dict[str, Any]) -> bytes:
    """As JSON, whatever bytes names are of."""
    try:
        return orjson.dumps(line)
    except orjson.JSONEncodeError:
        return json.dumps(line).encode()

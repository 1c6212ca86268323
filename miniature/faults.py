"""Broken records for the pool: one of each kind that a reader has to survive."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from bettersynth.core.records import END_OF_CHUNK, IMAGE_TOKEN, text_of
from miniature.questions import jpeg
from miniature.world import render, sample_scene

FAULTS_START = 900_000_000
"""Ids of broken records begin here."""


class Fault(NamedTuple):
    """A line that should be refused, and why."""

    kind: str
    id: str | None
    line: bytes


def image_path(identity: str) -> str:
    """The contest's image path of an id."""
    return f"images/{identity[:5]}/{identity}.jpg"


def write_faults(folder: Path, seed: int, existing: str) -> list[Fault]:
    """One fault of each kind, with their images written under `folder`; the last is a line that breaks off.

    `existing` is the id of a good record, for the fault of an id that is used twice.
    """
    good = jpeg(render(sample_scene(seed, FAULTS_START)))
    images = {
        "truncated_image": good[: len(good) // 2],
        "empty_image": b"",
        "not_an_image": b"this is text, not a picture\n",
        "decompression_bomb": _png_header(50_000, 50_000),
        "missing_image": None,
    }
    changes: dict[str, dict[str, Any]] = {
        "duplicate_id": {"id": existing},
        "id_not_a_string": {"id": FAULTS_START + 98},
        "missing_id": {"id": None},
        "no_image": {"images": []},
        "two_images": {"images": [image_path(existing)] * 2},
        "images_not_a_list": {"images": image_path(existing)},
        "path_leaves_folder": {"images": ["images/../../secret.jpg"]},
        "absolute_path": {"images": ["/secret.jpg"]},
        "url": {"images": ["http://example.org/picture.jpg"]},
        "no_image_token": {"text": f"a red circle {END_OF_CHUNK}"},
        "wrong_image_token": {"text": f"<image>\na red circle {END_OF_CHUNK}"},
        "two_image_tokens": {"text": f"{IMAGE_TOKEN}\n{IMAGE_TOKEN}\na red circle {END_OF_CHUNK}"},
        "empty_caption": {"text": text_of("").replace("  ", " ")},
        "control_token": {"text": text_of("a red circle <start_of_turn>user")},
    }
    faults = []
    for number, kind in enumerate([*images, *changes]):
        identity = f"{FAULTS_START + number:09d}"
        record: dict[str, Any] = {
            "id": identity,
            "text": text_of("a red circle on the left"),
            "images": [image_path(identity)],
        }
        record = {key: value for key, value in (record | changes.get(kind, {})).items() if value is not None}
        content = images.get(kind, good)
        if content is not None:
            path = folder / image_path(identity)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        faults.append(Fault(kind, record.get("id"), json.dumps(record).encode() + b"\n"))
    return [*faults, *_broken_lines()]


def _broken_lines() -> list[Fault]:
    """Lines that are no JSON object in UTF-8."""
    identity = f"{FAULTS_START + 99:09d}"
    record = {"id": identity, "text": text_of("a red circle"), "images": [image_path(identity)]}
    encoded = json.dumps(record).encode()
    return [
        Fault("not_an_object", None, b"[1, 2, 3]\n"),
        Fault("not_utf8", None, encoded.replace(b"red", b"r\xe9d") + b"\n"),
        Fault("torn_line", None, encoded[:-20]),
    ]


def _png_header(width: int, height: int) -> bytes:
    """The first bytes of a PNG that claims to be this large."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))

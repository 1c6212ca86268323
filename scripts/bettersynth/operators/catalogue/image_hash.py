"""Hashes of images, for `dedup`."""

from __future__ import annotations

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import OperatorSpec

SPEC = OperatorSpec(
    "image_hash",
    "sha256 of each image file and its 64-bit perceptual hash, in hex; ours, for `dedup`.",
    stats={"image_sha256": "words", "image_phash": "words"},
    kind="bettersynth.operators.own.image_hash:ImageHash",
    ours=True,
    decodes=True,
    cost=Cost(300, bytes=120),
)

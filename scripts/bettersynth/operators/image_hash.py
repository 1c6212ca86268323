"""Hashes of images, for `dedup`: equal files by sha256, near-equal pictures by perceptual hash."""

from __future__ import annotations

from typing import Any

import imagehash

from bettersynth.images import open_image
from bettersynth.publish import sha256_file


def hash_images(images: list[str], max_pixels: int) -> dict[str, Any]:
    """The hashes of each image file, in hex; the perceptual one is the 64-bit DCT hash of the decoded picture."""
    return {
        "image_sha256": [sha256_file(path) for path in images],
        "image_phash": [str(imagehash.phash(open_image(path, max_pixels))) for path in images],
    }

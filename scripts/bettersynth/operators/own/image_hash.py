"""Hashes of images, for `dedup`: equal files by sha256, near-equal pictures by perceptual hash."""

from __future__ import annotations

from typing import Any

import imagehash
from PIL import Image

from bettersynth.workflow.archives import sha256_at


class ImageHash:
    """Our operator `image_hash`: in hex, the hashes of each image file; the perceptual one is the 64-bit DCT hash."""

    def stats(
        self, texts: list[str], images: list[list[str]], decoded: list[dict[str, Image.Image]]
    ) -> list[dict[str, Any]]:
        """Stats of each record from the paths of its images, and from its pictures by path."""
        return [
            {
                "image_sha256": [sha256_at(path) for path in paths],
                "image_phash": [str(imagehash.phash(pictures[path])) for path in paths],
            }
            for paths, pictures in zip(images, decoded, strict=True)
        ]

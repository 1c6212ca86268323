"""Pillow: no image too large, and none filled up with grey."""

from __future__ import annotations

import warnings

from bettersynth.runtime.patches.versions import made_for


def limit_pixels(max_pixels: int) -> None:
    """Refuse to decode a larger image, whoever opens it."""
    from PIL import Image

    made_for("pillow")
    Image.MAX_IMAGE_PIXELS = max_pixels
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def refuse_truncated() -> None:
    """Raise for a damaged image; Data-Juicer, when it is imported, lets Pillow fill it up with grey."""
    from PIL import ImageFile

    made_for("pillow")
    ImageFile.LOAD_TRUNCATED_IMAGES = False

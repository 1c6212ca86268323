"""How much detail an image has that a smaller size does not keep, as structural similarity with itself.

SynthVLM (Liu et al. 2024, arXiv:2407.20756) ranks drawn images by it: an image that survives the detour through the
336 pixels that a vision tower sees loses little by being looked at. The similarity is that of Wang et al. 2004 with
scikit-image's defaults: windows of 7 by 7, means over those that lie inside, sample covariances, a range of 255.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL.Image import Image, Resampling
from skimage.metrics import structural_similarity

Grey = npt.NDArray[np.float64]


class ImageSSIM:
    """Our operator `image_ssim`: one value for each image of a record, 1 for one that loses nothing."""

    def __init__(self, size: int, reduced: int) -> None:
        """Images become squares of `size` pixels and take their detour through `reduced` pixels."""
        self.size = size
        self.reduced = reduced

    def stats(self, texts: list[str], images: list[list[str]], decoded: list[dict[str, Image]]) -> list[dict[str, Any]]:
        """Stats of each record from its pictures by path."""
        return [
            {"image_ssim": [ssim(*_there_and_back(pictures[path], self.size, self.reduced)) for path in paths]}
            for paths, pictures in zip(images, decoded, strict=True)
        ]


def _there_and_back(image: Image, size: int, reduced: int) -> tuple[Grey, Grey]:
    """The image as a grey square of `size` pixels, before and after the detour."""
    square = image.resize((size, size), Resampling.BILINEAR)
    back = square.resize((reduced, reduced), Resampling.BILINEAR).resize((size, size), Resampling.BILINEAR)
    return np.asarray(square.convert("L"), np.float64), np.asarray(back.convert("L"), np.float64)


def ssim(one: Grey, two: Grey) -> float:
    """Mean structural similarity of two grey images of one size, values 0…255."""
    return float(structural_similarity(one, two, data_range=255))

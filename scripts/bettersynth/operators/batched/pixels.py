"""Transformers' slow image processors in two halves: bytes in a worker process, arithmetic on the device.

Resizing and cropping give the very pixels of the stock processor (Pillow on uint8); models with equal settings share
them. Rescaling and normalising follow on the device in fp32, so that only bytes travel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from transformers.image_transforms import center_crop
from transformers.image_utils import ChannelDimension

from bettersynth.operators.batched.resize import Picture, Plan, columns_first, resize_part
from bettersynth.operators.batched.taps import SUPPORT, Axis

MOST_RESIZED = 16_000_000
"""Pixels that a picture may be resized to before it is cropped, 64 MB in Pillow; beyond, what is kept alone is made."""
SUPPORTED = (
    "CLIPImageProcessor",
    "CLIPFeatureExtractor",
    "ViTImageProcessor",
    "BlipImageProcessor",
    "OwlViTImageProcessor",
)
"""Processors that resize, then crop, then rescale, then normalise, and do nothing else."""


class Geometry(NamedTuple):
    """Where a model's pixels come from: the part of an image processor that works on bytes."""

    size: int | tuple[int, int]
    """Length of the shortest edge, or `(height, width)`."""
    resample: int
    crop: tuple[int, int] | None
    horizontal_flip: bool = False
    vertical_flip: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(height, width, 3)` of what `apply` gives."""
        height, width = self.crop or self.size  # type: ignore[misc]
        return height, width, 3

    def apply(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """The image's pixels `[height, width, 3]`, equal to the stock processor's; `image` is in mode RGB."""
        if self.horizontal_flip:
            image = ImageOps.mirror(image)
        if self.vertical_flip:
            image = ImageOps.flip(image)
        height, width = self.resized(image.height, image.width)
        if self.crop and height * width > MOST_RESIZED:
            if self.fits_device:
                upright = self._replace(horizontal_flip=False, vertical_flip=False)  # it is flipped already
                return resize_part(np.asarray(image), _plan(upright, image.height, image.width), self.resample)
            image = middle(image)  # nearly the same, and with other filters there is no better way
            height, width = self.resized(image.height, image.width)
        pixels = np.asarray(image.resize((width, height), resample=self.resample))
        return center_crop(pixels, self.crop, input_data_format=ChannelDimension.LAST) if self.crop else pixels

    @property
    def fits_device(self) -> bool:
        """Whether `bettersynth.operators.batched.resize` gives the same bytes as `apply`."""
        least = self.size if isinstance(self.size, tuple) else (self.size, self.size)
        inside = self.crop is None or (self.crop[0] <= least[0] and self.crop[1] <= least[1])
        return inside and self.resample in SUPPORT

    def picture(self, offset: int, height: int, width: int) -> Picture:
        """What `apply` does, in the device's words, to a picture that begins at pixel `offset` of a buffer."""
        return Picture(offset, _plan(self, height, width))

    def resized(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.size, tuple):
            return self.size
        long = int(self.size * max(height, width) / min(height, width))
        return (long, self.size) if height > width else (self.size, long)


def middle(image: Image.Image) -> Image.Image:
    """The part of a long picture around its middle, four times as long as it is wide."""
    width, height = (min(length, 4 * min(image.size)) for length in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


@lru_cache(maxsize=4096)
def _plan(geometry: Geometry, height: int, width: int) -> Plan:
    size = geometry.resized(height, width)
    crop = geometry.crop or size
    down = Axis(size[0], (size[0] - crop[0]) // 2, crop[0], geometry.vertical_flip)
    across = Axis(size[1], (size[1] - crop[1]) // 2, crop[1], geometry.horizontal_flip)
    return Plan(height, width, down, across, columns_first((height, width), size, geometry.resample))


@dataclass(frozen=True)
class Normalisation:
    """The part of an image processor that works on numbers."""

    factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """`[images, 3, height, width]` in `dtype` from uint8 `[images, height, width, 3]`; computed in fp32."""
        mean, std = _on(pixels.device, self.mean), _on(pixels.device, self.std)
        return (pixels * self.factor).sub_(mean).div_(std).permute(0, 3, 1, 2).to(dtype)


@lru_cache
def _on(device: torch.device, values: tuple[float, ...]) -> torch.Tensor:
    """Made once: the job would wait for the device every time."""
    return torch.tensor(values, device=device)


def split(processor: Any, horizontal_flip: bool, vertical_flip: bool) -> tuple[Geometry, Normalisation]:
    """The two halves of a transformers image processor, after the operator's flips.

    Raises ValueError for a processor that does more than resize, crop, rescale and normalise, or that does not give
    all images one size.
    """
    name = type(processor).__name__
    if name not in SUPPORTED:
        raise ValueError(f"{name} is not supported; the operator's model needs one of {', '.join(SUPPORTED)}")
    crop = _pair(processor.crop_size) if getattr(processor, "do_center_crop", False) else None
    size = processor.size.get("shortest_edge") or _pair(processor.size)
    if not processor.do_resize or (crop is None and isinstance(size, int)):
        raise ValueError(f"{name} must resize or crop all images to one size; see its preprocessor_config.json")
    geometry = Geometry(size, int(processor.resample), crop, horizontal_flip, vertical_flip)
    plain: Sequence[float] = (0.0, 0.0, 0.0)
    normalisation = Normalisation(
        processor.rescale_factor if processor.do_rescale else 1.0,
        tuple(processor.image_mean if processor.do_normalize else plain),
        tuple(processor.image_std if processor.do_normalize else (1.0, 1.0, 1.0)),
    )
    return geometry, normalisation


def _pair(size: dict[str, int]) -> tuple[int, int]:
    return size["height"], size["width"]

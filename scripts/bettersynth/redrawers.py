"""Redrawers: diffusion pipelines that draw an image anew from the image and its caption.

The steps are those of Data-Juicer's `image_diffusion_mapper`: the image is squeezed into a square, drawn over, and
stretched back to its size. Random numbers are the record's own.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL.Image import Image, Resampling

from bettersynth.configuration.types import Redrawer
from bettersynth.publish import publish, sha256_bytes
from bettersynth.seeding import record_seed


class UnsafeImageError(Exception):
    """The pipeline's safety checker refused what was drawn."""


class DiffusionModel:
    """Stable Diffusion's image-to-image pipeline, opened from a local folder."""

    def __init__(self, settings: Redrawer, folder: Path, device: str) -> None:
        if not (folder / "model_index.json").is_file():
            raise FileNotFoundError(f"{folder}: no model_index.json; this is not a diffusers folder")
        self.settings = settings
        pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, torch_dtype=torch.float32
        )
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline = pipeline.to(device)

    @torch.inference_mode()
    def draw(self, image: Image, caption: str, record_id: str, seed: int) -> Image:
        """The image drawn anew, in the size of the old one. Raises UnsafeImageError."""
        side = self.settings.size
        drawn = self.pipeline(
            prompt=[caption],
            image=image.resize((side, side), Resampling.BILINEAR),
            strength=self.settings.strength,
            guidance_scale=self.settings.guidance_scale,
            num_inference_steps=self.settings.steps,
            generator=[torch.Generator().manual_seed(record_seed(seed, record_id))],
        )
        if drawn.nsfw_content_detected and drawn.nsfw_content_detected[0]:
            raise UnsafeImageError(record_id)
        return drawn.images[0].resize(image.size, Resampling.BILINEAR)


def save_image(image: Image, folder: Path) -> str:
    """Put the image into `folder` as PNG under the sha256 of its bytes; returns the path below `folder`."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    digest = sha256_bytes(buffer.getvalue())
    name = f"{digest[:2]}/{digest}.png"
    path = folder / name
    if not path.exists():
        with publish(path) as temporary:
            temporary.write_bytes(buffer.getvalue())
    return name

"""Stable Diffusion XL."""

from __future__ import annotations

from bettersynth.configuration.family import RedrawerFamily

FAMILY = RedrawerFamily("StableDiffusionXL")

"""Stable Diffusion 3."""

from __future__ import annotations

from bettersynth.configuration.family import RedrawerFamily

FAMILY = RedrawerFamily("StableDiffusion3")

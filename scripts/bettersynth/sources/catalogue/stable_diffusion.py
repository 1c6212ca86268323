"""Stable Diffusion 1 and 2."""

from __future__ import annotations

from bettersynth.configuration.family import RedrawerFamily

FAMILY = RedrawerFamily("StableDiffusion")

"""BLIP-2, with OPT or Flan-T5."""

from __future__ import annotations

from bettersynth.configuration.family import CaptionerFamily

FAMILY = CaptionerFamily(
    "Blip2ForConditionalGeneration",
    "blip-2",
    "bettersynth.sources.captioners.families:Blip2",
)

"""Florence-2."""

from __future__ import annotations

from bettersynth.configuration.family import CaptionerFamily

FAMILY = CaptionerFamily(
    "Florence2ForConditionalGeneration",
    "florence2",
    "bettersynth.sources.captioners.families:Florence2",
)

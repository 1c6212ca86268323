"""InternVL, in the form that transformers has."""

from __future__ import annotations

from bettersynth.configuration.family import CHAT, CaptionerFamily

FAMILY = CaptionerFamily(
    "InternVLForConditionalGeneration",
    "internvl",
    "bettersynth.sources.captioners.families:InternVL",
    processor="InternVLProcessor",
    answers=True,
    cost=CHAT,
)

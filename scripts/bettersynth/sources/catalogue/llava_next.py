"""LLaVA-NeXT."""

from __future__ import annotations

from bettersynth.configuration.family import CHAT, CaptionerFamily

FAMILY = CaptionerFamily(
    "LlavaNextForConditionalGeneration",
    "llava_next",
    "bettersynth.sources.captioners.families:LlavaNext",
    answers=True,
    cost=CHAT,
)

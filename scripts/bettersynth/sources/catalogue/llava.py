"""LLaVA-1.5."""

from __future__ import annotations

from bettersynth.configuration.family import CHAT, CaptionerFamily

FAMILY = CaptionerFamily(
    "LlavaForConditionalGeneration",
    "llava",
    "bettersynth.sources.captioners.families:Llava",
    answers=True,
    cost=CHAT,
)

"""Qwen2-VL."""

from __future__ import annotations

from bettersynth.configuration.family import CHAT, CaptionerFamily

FAMILY = CaptionerFamily(
    "Qwen2VLForConditionalGeneration",
    "qwen2_vl",
    "bettersynth.sources.captioners.families:Qwen2VL",
    processor="Qwen2VLProcessor",
    answers=True,
    cost=CHAT,
)

"""Qwen2.5-VL."""

from __future__ import annotations

from bettersynth.configuration.family import CHAT, CaptionerFamily

FAMILY = CaptionerFamily(
    "Qwen2_5_VLForConditionalGeneration",
    "qwen2_5_vl",
    "bettersynth.sources.captioners.families:Qwen2VL",
    processor="Qwen2_5_VLProcessor",
    answers=True,
    cost=CHAT,
)

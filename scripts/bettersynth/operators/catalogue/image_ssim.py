"""Detail that a smaller size does not keep."""

from __future__ import annotations

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import OperatorSpec, Parameter

SPEC = OperatorSpec(
    "image_ssim",
    "Structural similarity of the grey image with itself after a detour through a smaller size, which detail does "
    "not survive (SynthVLM, arXiv:2407.20756); ours.",
    stats={"image_ssim": "numbers"},
    kind="bettersynth.operators.own.image_ssim:ImageSSIM",
    ours=True,
    decodes=True,
    parameters={"size": Parameter(768, 8), "reduced": Parameter(336, 1)},
    cost=Cost(20),
)

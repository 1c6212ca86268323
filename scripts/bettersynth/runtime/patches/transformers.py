"""transformers: images are resized by Pillow, and processors do without their part for videos."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

from bettersynth.runtime.patches.versions import made_for

if TYPE_CHECKING:
    from transformers import ProcessorMixin


def use_pillow_only() -> None:
    """Hide torchvision from transformers, so that images are resized by Pillow wherever a job runs.

    Its fast image processors give slightly other pixels: scores would depend on whether it is installed.
    """
    made_for("transformers")
    if "torchvision" not in sys.modules:
        sys.modules["torchvision"] = None  # type: ignore[assignment]


@cache
def image_only(processor: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """The processor's class without the part for videos, which transformers opens with torchvision alone."""
    made_for("transformers")
    return type(processor.__name__, (processor,), {"attributes": ["image_processor", "tokenizer"]})

"""transformers: images are resized by Pillow, and processors do without their part for videos."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from bettersynth.runtime.patches.model_code import ModelCodeError, forbid_model_code
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
def refuse_code() -> None:
    """Let transformers neither run nor ask to run programs that a model's `auto_map` names, and say so of its folder.

    It asks on standard input where it was not told, and Data-Juicer's own operators do not always tell it.
    """
    made_for("transformers")
    forbid_model_code()
    from transformers import dynamic_module_utils

    asked = dynamic_module_utils.resolve_trust_remote_code

    def resolve(_: Any, model: Any, has_local_code: bool, has_remote_code: bool, *__: Any, **___: Any) -> bool:
        if has_remote_code and not has_local_code:
            raise ModelCodeError(model)
        return False

    for name, module in list(sys.modules.items()):  # those that import it by its name, and have done so
        if name.startswith("transformers.") and vars(module).get(asked.__name__) is asked:
            setattr(module, asked.__name__, resolve)


@cache
def image_only(processor: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """The processor's class without the part for videos, which transformers opens with torchvision alone."""
    made_for("transformers")
    return type(processor.__name__, (processor,), {"attributes": ["image_processor", "tokenizer"]})

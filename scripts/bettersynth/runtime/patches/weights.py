"""transformers and diffusers: a model opens with the weights of its checkpoint, all of them and no others.

Both fill in at random what a checkpoint lacks, leave aside what the class does not know, and say so in a log: two runs
then differ, and both are wrong. Here every opening is looked at, those by Data-Juicer and of a pipeline's parts too.
What may be missing, or left over, stands where a class is: in its own `_keys_to_ignore_on_load_missing` and
`_keys_to_ignore_on_load_unexpected`, or where it is opened (`may_lack`, `spare`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from bettersynth.core.commands import make
from bettersynth.core.errors import PersonError
from bettersynth.runtime.patches.versions import made_for

_PLACED: dict[str, str] = {}
"""Where models are opened just now, if not as usual."""
NAMED = 5
"""Weights of a kind that a message names."""


class WeightsError(PersonError, ValueError):
    """A checkpoint that does not have the weights of the class that it is opened as."""


def open_model(
    kind: Any, folder: str | Path, *, may_lack: Sequence[str] = (), spare: Sequence[str] = (), **options: Any
) -> Any:
    """`kind.from_pretrained` of a local folder's safetensors. Raises WeightsError unless it has the class's weights.

    Regular expressions at the start of names say what else the class does without (`may_lack`) or leaves in the
    folder (`spare`); `options` are those of `from_pretrained`.
    """
    refuse_made_up_weights()
    model, info = _looked_at(kind.from_pretrained, folder, local_files_only=True, use_safetensors=True, **options)
    _check(type(model), folder, model.state_dict(), info, may_lack, spare)
    return model


def check_weights(
    kind: type,
    source: str | Path,
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    *,
    spare: Sequence[str] = (),
    remedy: str | None = None,
) -> None:
    """Raise WeightsError unless `state`, read from `source`, has the weights `own` of a class, all and no others.

    `spare` as of `open_model`; `remedy` is the message's last sentence, where that is not to fetch a model again.
    """
    info = {
        "missing_keys": own.keys() - state.keys(),
        "unexpected_keys": state.keys() - own.keys(),
        "mismatched_keys": sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape),
    }
    _check(kind, source, own, info, spare=spare, remedy=remedy)


def refuse_made_up_weights() -> None:
    """From now on in this process, a model of transformers that anybody opens has all its weights, or WeightsError."""
    from transformers import PreTrainedModel

    made_for("transformers")
    _look_at(PreTrainedModel)


def refuse_made_up_parts() -> None:
    """The same for pipelines of diffusers, whose parts are models of either library."""
    from diffusers import ModelMixin

    refuse_made_up_weights()
    _look_at(ModelMixin)


@contextmanager
def headers_only() -> Iterator[None]:
    """Models that are opened within have names and shapes of weights, and no values: none is read from the disk."""
    from torch.nn import Module

    moved = Module.to
    _PLACED["device_map"] = "meta"
    Module.to = lambda self, *_, **__: self  # type: ignore[assignment]  # what has no values cannot be moved
    try:
        yield
    finally:
        _PLACED.clear()
        Module.to = moved  # type: ignore[method-assign]


def _look_at(base: Any) -> None:
    """Let `from_pretrained` of a class and of those below it look at what it loaded."""
    if hasattr(base, "unchecked_from_pretrained"):
        return
    base.unchecked_from_pretrained = base.from_pretrained

    def from_pretrained(cls: Any, folder: str | Path, *arguments: Any, **options: Any) -> Any:
        opened = base.unchecked_from_pretrained.__func__.__get__(cls)
        if options.get("output_loading_info"):  # who asks for it looks at it
            return opened(folder, *arguments, **options)
        model, info = _looked_at(opened, folder, *arguments, **options)
        place = Path(folder, options.get("subfolder") or "")
        _check(type(model), place, model.state_dict(), info)
        return model

    base.from_pretrained = classmethod(from_pretrained)


def _looked_at(opened: Any, *arguments: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Model and loading info; weights of another shape are in it instead of an error of the first."""
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True, **_PLACED}
    return opened(*arguments, **options)  # type: ignore[no-any-return]


def _check(
    kind: type,
    source: str | Path,
    own: Mapping[str, Tensor],
    info: Mapping[str, Any],
    may_lack: Sequence[str] = (),
    spare: Sequence[str] = (),
    remedy: str | None = None,
) -> None:
    """Raise WeightsError with the names of the weights that are missing, unexpected or of another shape."""
    problems = {
        "missing": _others(info["missing_keys"], may_lack),
        "unexpected": _others(info["unexpected_keys"], spare),
        "of another shape": [_shaped(entry, own) for entry in info["mismatched_keys"]],
    }
    said = [f"{len(names)} {what}: {_few(names)}" for what, names in problems.items() if names]
    if said:
        remedy = remedy or f"Fetch the model again ({make('stage')}), or name a folder that was saved from this class"
        raise WeightsError(
            f"{source}: not the weights of {kind.__name__}, and none are made up: {'; '.join(said)}. {remedy}"
        )


def _others(names: Collection[str], allowed: Sequence[str]) -> list[str]:
    return sorted(name for name in names if not any(re.match(pattern, name) for pattern in allowed))


def _shaped(entry: Any, own: Mapping[str, Tensor]) -> str:
    """A weight with the shape that the class has; diffusers gives name and both shapes, transformers the name."""
    name = entry if isinstance(entry, str) else entry[0]
    return f"{name} (the class has {' × '.join(map(str, own[name].shape))})"


def _few(names: Sequence[str]) -> str:
    return ", ".join([*names[:NAMED], *(["…"] if len(names) > NAMED else [])])

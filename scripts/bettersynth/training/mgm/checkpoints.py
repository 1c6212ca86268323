"""Checkpoints to resume a stage from: safetensors and JSON, whole or not there at all.

A checkpoint is a folder `checkpoint-<step>` with the trained weights, the optimiser's moments, the trainer's state
and `inputs.json`: what the stage was started with, and the other files' sizes. It is made under another name and
renamed; a copy that was cut short has not all files at their sizes, and is passed over.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.trainer_callback import TrainerState

from bettersynth.core.publish import publish_folder, read_json, write_json
from bettersynth.core.remedy import again
from bettersynth.runtime.patches.weights import check_weights

PREFIX = "checkpoint-"
INPUTS = "inputs.json"
WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
SCHEDULE = "schedule.json"
TRAINER_STATE = "trainer_state.json"
"""Where the Trainer looks for its state."""


class ChangedInputsError(RuntimeError):
    """A checkpoint was made from other data or parameters than are asked for now."""


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that the stage trains, by name; tied ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_checkpoint(
    folder: Path,
    inputs: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    state: TrainerState,
) -> None:
    """Write `folder/checkpoint-<step>` and remove the older ones."""
    with publish_folder(folder / f"{PREFIX}{state.global_step}") as temporary:
        save_file(_plain(trained_parameters(model)), temporary / WEIGHTS)
        moments = {
            f"{number}.{key}": value
            for number, values in optimizer.state_dict()["state"].items()
            for key, value in values.items()
        }
        save_file(_plain(moments), temporary / OPTIMIZER)
        write_json(
            temporary / SCHEDULE,
            {
                "learning_rates": [group["lr"] for group in optimizer.param_groups],
                "scheduler": {key: value for key, value in scheduler.state_dict().items() if key != "lr_lambdas"},
            },
        )
        # The batch on one device may differ after a resume, the global batch may not.
        dataclasses.replace(state, train_batch_size=None).save_to_json(str(temporary / TRAINER_STATE))
        sizes = {path.name: path.stat().st_size for path in sorted(temporary.iterdir())}
        write_json(temporary / INPUTS, {"inputs": inputs, "bytes": sizes})
    for older in checkpoints(folder)[:-1]:
        shutil.rmtree(older)


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints in `folder`, the latest last."""
    found = [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(filter(_is_whole, found), key=step_of)


def step_of(checkpoint: Path) -> int:
    """Steps that were done when the checkpoint was written."""
    return int(checkpoint.name.removeprefix(PREFIX))


def _is_whole(checkpoint: Path) -> bool:
    """Whether every file is there, as long as it was written."""
    try:
        sizes = read_json(checkpoint / INPUTS)["bytes"]
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def latest_checkpoint(folder: Path, inputs: dict[str, Any]) -> Path | None:
    """The last whole checkpoint of `folder`, None if there is none.

    Raises `ChangedInputsError` when it was made from other inputs than `inputs`.
    """
    found = checkpoints(folder)
    if not found:
        return None
    before = read_json(found[-1] / INPUTS)["inputs"]
    changed = sorted(key for key in before.keys() | inputs.keys() if before.get(key) != inputs.get(key))
    if changed:
        raise ChangedInputsError(
            f"{found[-1]}: cannot resume, for {', '.join(changed)} changed since this checkpoint was written"
        )
    return found[-1]


def load_weights(checkpoint: Path, model: nn.Module) -> None:
    """Put the trained weights into the model. Raises WeightsError for those of another model."""
    saved, trained = load_file(checkpoint / WEIGHTS), trained_parameters(model)
    remedy = f"Begin the stage anew: {again(checkpoint)}"
    check_weights(type(model), checkpoint / WEIGHTS, trained, saved, remedy=remedy)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(saved[name])


def load_optimizer(
    checkpoint: Path, optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler
) -> None:
    """Put moments and schedule back."""
    schedule = read_json(checkpoint / SCHEDULE)
    state = optimizer.state_dict()
    state["state"] = {}
    for name, value in load_file(checkpoint / OPTIMIZER).items():
        number, key = name.split(".")
        state["state"].setdefault(int(number), {})[key] = value
    for group, learning_rate in zip(state["param_groups"], schedule["learning_rates"], strict=True):
        group["lr"] = learning_rate
    optimizer.load_state_dict(state)
    scheduler.load_state_dict(scheduler.state_dict() | schedule["scheduler"])

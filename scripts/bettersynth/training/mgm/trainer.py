"""One training stage with the transformers Trainer: its arguments, its log, and resuming it exactly."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.utils import import_utils

from bettersynth.configuration.training import Stage
from bettersynth.core.progress import duration
from bettersynth.core.publish import publish
from bettersynth.core.steady import Steady
from bettersynth.runtime.patches import torch_workers
from bettersynth.training.mgm import checkpoints
from bettersynth.training.mgm.data import Collator, ConversationDataset, TrainingOrder
from bettersynth.training.mgm.model import IGNORE_INDEX, MGMForConditionalGeneration
from bettersynth.training.mgm.processes import is_main_process, place_among_processes

# Or the Trainer would import Hugging Face's `datasets`, a second of every job, to ask whether ours is one of them.
import_utils._datasets_available = False
from transformers import Trainer

logger = logging.getLogger(__name__)

REPORT_SECONDS = 15.0
GPU_LENGTHS = 16
"""A GPU's batches are padded to a multiple of so many tokens: cuDNN plans its attention anew, for some 80 ms each time
in the forward and in the backward pass, for every length that it meets."""
HELD_OUT = "held_out_loss"
LAST_PART = 5
"""The loss that a run is judged by is the mean over its last fifth: one step alone is noise."""


class LossError(FloatingPointError):
    """The loss is no number any more; training ended."""

    remedy = "Lower `learning_rate`, or train with `precision: fp32`"

    def __init__(self, name: str, step: int, loss: float) -> None:
        super().__init__(f"{name}: the loss is {loss} at step {step}")
        self.why = f"the loss was {loss} at step {step} of {name.partition(' ')[0]}"
        self.step = step


class TrainingSummary(NamedTuple):
    """What a stage did."""

    steps: int
    losses: list[float]
    resumed_from: int
    seconds: float
    moments: list[float]
    """When each step of this process was done, on the monotonic clock."""
    steady: Steady
    """Samples after the first step, which loads and compiles."""
    held_out: list[dict[str, Any]]
    """`step` and `loss` on the held-out pairs, wherever it was measured; null for one that is no number."""

    def facts(self, global_batch: int) -> dict[str, Any]:
        """For the card."""
        done = self.steps - self.resumed_from
        return {
            "steps": self.steps,
            "loss": self.loss,
            "first_loss": self.losses[0],
            "last_loss": self.losses[-1],
            "resumed_from_step": self.resumed_from,
            **({"held_out": self.held_out} if self.held_out else {}),
            "samples_per_second": round(done * global_batch / self.seconds, 3) if done else None,
            **self.steady.facts(),
        }

    @property
    def loss(self) -> float:
        """Mean over the last fifth of the steps."""
        last = self.losses[-max(1, len(self.losses) // LAST_PART) :]
        return round(sum(last) / len(last), 6)


def steps_of(rows: int, stage: Stage) -> int:
    """Optimiser steps of a stage: the last rows of an epoch that fill no global batch are left out."""
    return math.ceil(stage.epochs * (rows // stage.global_batch))


def _resumable(place: Path, inputs: dict[str, Any], stop_at: int | None) -> Path | None:
    """The checkpoint to go on from.

    Those of other data or parameters, or at `stop_at` and beyond, are removed, with a word in the log.
    """
    try:
        found = checkpoints.latest_checkpoint(place, inputs)
        if found is None or stop_at is None or checkpoints.step_of(found) < stop_at:
            return found
        why = f"{found}: cannot be gone on from to step {stop_at}"
    except checkpoints.ChangedInputsError as changed:
        why = str(changed)
    logger.warning("%s; starting anew", why)
    if is_main_process():
        shutil.rmtree(place, ignore_errors=True)
    return None


def train_stage(
    model: MGMForConditionalGeneration,
    dataset: ConversationDataset,
    stage: Stage,
    *,
    folder: Path,
    inputs: dict[str, Any],
    seed: int,
    name: str,
    pad_token_id: int,
    resume_from: Path | None = None,
    stop_at: int | None = None,
    held_out: ConversationDataset | None = None,
    measure_at: Sequence[int] = (),
) -> TrainingSummary:
    """Train the parameters of `model` that require a gradient.

    Checkpoints go to `folder/checkpoints`, the log to `folder/log.jsonl`. A checkpoint of the same `inputs` that is
    found there, or else `resume_from`, is continued. With `stop_at`, training stops after that many steps of the full
    schedule and leaves a checkpoint. The loss on the pairs `held_out` is measured after the steps `measure_at` and the
    last. Raises `LossError` when a step's loss is no number.
    """
    steps = steps_of(len(dataset), stage)
    stop_at = None if stop_at is None else min(stop_at, steps)
    place = folder / "checkpoints"
    order = TrainingOrder(
        len(dataset),
        stage.global_batch,
        steps,
        seed,
        lengths=dataset.lengths if stage.group_by_length else None,
    )
    if stage.precision == "bf16":
        _freeze_in(torch.bfloat16, model)
    if torch.cuda.is_available():
        model.vision_tower_aux.to(memory_format=torch.channels_last)  # type: ignore[call-arg]
        if stage.compile:
            model.compile_layers()
    checkpoint = _resumable(place, inputs, stop_at) or resume_from
    if checkpoint is not None and is_main_process():
        logger.info("%s goes on from step %d of %d: %s", name, checkpoints.step_of(checkpoint), steps, checkpoint)
    log = _Log(folder / "log.jsonl", name, stage.global_batch)
    collator = Collator(
        pad_token_id,
        model.config.image_size_aux,
        model.vision_tower.dtype,
        multiple=GPU_LENGTHS if torch.cuda.is_available() else 1,
    )
    trainer = _StageTrainer(
        model=model,
        args=_arguments(stage, steps, seed, place),
        train_dataset=dataset,
        data_collator=collator,
        callbacks=[log, _Save(stage.save_steps, stop_at)],
        order=order,
        inputs=inputs,
        over_tokens=stage.loss_mean == "tokens",
    )
    trainer.remove_callback(PrinterCallback)
    if held_out is not None and is_main_process():
        at = {*measure_at, steps if stop_at is None else stop_at}
        trainer.add_callback(_Measure(trainer, held_out, collator, stage, at, log))
    started = time.monotonic()
    torch_workers.hand_over_anyhow()
    with torch_workers.patience(name, stage.workers or 0):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    resumed_from = 0 if checkpoint is None else checkpoints.step_of(checkpoint)
    history = trainer.state.log_history
    return TrainingSummary(
        trainer.state.global_step,
        [entry["loss"] for entry in history if "loss" in entry],
        resumed_from,
        time.monotonic() - started,
        log.moments,
        log.steady,
        [{"step": entry["step"], "loss": entry[HELD_OUT]} for entry in history if HELD_OUT in entry],
    )


def _arguments(stage: Stage, steps: int, seed: int, folder: Path) -> TrainingArguments:
    """The kit's settings, at the global batch whatever the number of GPUs."""
    world_size = place_among_processes()[1]
    at_once = stage.device_batch * world_size
    if stage.global_batch % at_once:
        raise ValueError(
            f"global_batch {stage.global_batch} is no multiple of device_batch {stage.device_batch} × {world_size} "
            "processes; change `device_batch`"
        )
    if world_size == 1 and torch.cuda.device_count() > 1:
        raise RuntimeError(
            f"{torch.cuda.device_count()} GPUs are visible to one process; start one for each "
            "(`bettersynth.training.mgm.processes.run`), or choose one with CUDA_VISIBLE_DEVICES"
        )
    on_gpu = torch.cuda.is_available()
    # TrainingArguments leaves it there, and takes it for a default the next time.
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=stage.device_batch,
        gradient_accumulation_steps=stage.global_batch // at_once,
        learning_rate=stage.learning_rate,
        weight_decay=stage.weight_decay,
        warmup_ratio=stage.warmup_ratio,
        lr_scheduler_type="cosine",
        optim="adamw_torch_fused" if on_gpu else "adamw_torch",
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        max_grad_norm=1.0,
        bf16=stage.precision == "bf16",
        use_cpu=not on_gpu,
        gradient_checkpointing=stage.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        dataloader_num_workers=stage.workers,
        dataloader_pin_memory=on_gpu,
        dataloader_prefetch_factor=4 if stage.workers else None,
        accelerator_config={"non_blocking": on_gpu},
        remove_unused_columns=False,
        save_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        seed=seed,
        report_to="none",
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
    )


def _freeze_in(dtype: torch.dtype, model: nn.Module) -> None:
    """Keep what is not trained in `dtype`; what is trained stays in fp32 under autocast."""
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


class _StageTrainer(Trainer):
    """The transformers Trainer, with the project's order of samples and form of checkpoints.

    Every forward pass takes its random numbers (stochastic depth) from the seed, the step and the process: so no
    generator's state need be kept to resume exactly.
    """

    def __init__(
        self, *arguments: Any, order: Sampler[int], inputs: dict[str, Any], over_tokens: bool, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._order = order
        self._over_tokens = over_tokens
        self._inputs = inputs
        self._passes = 0

    def get_train_dataloader(self) -> DataLoader:
        """The usual one, whose workers are not waited for without end."""
        loader = super().get_train_dataloader()
        if self.args.dataloader_num_workers:
            getattr(loader, "base_dataloader", loader).timeout = torch_workers.PATIENCE_S
        return loader

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self._order

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        number = self._passes % self.args.gradient_accumulation_steps
        self._passes += 1
        name = f"{self.args.seed} {self.state.global_step} {number} {self.args.process_index}"
        torch.manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big"))
        # Without the step's number of tokens a pass's loss is its own mean, and the step's the mean of these.
        return super().training_step(model, inputs, num_items_in_batch if self._over_tokens else None)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self.args.should_save:
            parts: Any = (self.model, self.optimizer, self.lr_scheduler, self.state)
            checkpoints.save_checkpoint(Path(str(self.args.output_dir)), self._inputs, *parts)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoints.load_weights(Path(resume_from_checkpoint), self.model)  # type: ignore[arg-type]

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            parts: Any = (self.optimizer, self.lr_scheduler)
            checkpoints.load_optimizer(Path(checkpoint), *parts)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing to load: see the class."""

    def compare_trainer_and_checkpoint_args(
        self, training_args: TrainingArguments, trainer_state: TrainerState
    ) -> None:
        """Nothing to compare: `latest_checkpoint` did, and more strictly."""


class _Save(TrainerCallback):
    """Checkpoints every so many steps, but not at the end; with `stop_at`, stops there and leaves one."""

    def __init__(self, every: int, stop_at: int | None) -> None:
        self._every = every
        self._stop_at = stop_at

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        step = state.global_step
        if self._stop_at is not None and step >= self._stop_at:
            control.should_training_stop = control.should_save = True
        elif step % self._every == 0 and step < state.max_steps:
            control.should_save = True
        return control


class _Measure(TrainerCallback):
    """After some steps, the loss on the held-out pairs: in the trainer's history, which checkpoints keep, and the log.

    It comes after the step's own line in the log, and before the checkpoint.
    """

    def __init__(
        self,
        trainer: Trainer,
        held_out: ConversationDataset,
        collator: Collator,
        stage: Stage,
        at: set[int],
        log: _Log,
    ) -> None:
        self._trainer, self._at, self._log = trainer, at, log
        self._batches = DataLoader(
            held_out,
            stage.device_batch,
            collate_fn=collator,
            num_workers=stage.workers,  # type: ignore[arg-type]
            timeout=torch_workers.PATIENCE_S if stage.workers else 0,
        )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        measured = any(HELD_OUT in entry and entry["step"] == state.global_step for entry in state.log_history)
        if state.global_step not in self._at or measured or model is None:
            return
        loss = self._loss(model)
        entry: dict[str, Any] = {"step": state.global_step, HELD_OUT: round(loss, 6) if math.isfinite(loss) else None}
        state.log_history.append(entry)
        self._log.write(entry)

    def _loss(self, model: nn.Module) -> float:
        """Mean over all tokens of the answers, without dropout."""
        total, tokens = 0.0, 0
        model.eval()
        with torch.no_grad(), self._trainer.compute_loss_context_manager():
            for batch in self._batches:
                batch = {key: value.to(self._trainer.args.device) for key, value in batch.items()}
                count = int((batch["labels"][:, 1:] != IGNORE_INDEX).sum())
                total += float(model(**batch).loss) * count
                tokens += count
        model.train()
        return total / max(tokens, 1)


class _Log(TrainerCallback):
    """`log.jsonl`, one line for each step, and a line for people now and then."""

    def __init__(self, path: Path, name: str, global_batch: int) -> None:
        self._path = path
        self._name = name
        self._global_batch = global_batch
        self.moments: list[float] = []
        self.steady = Steady()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._started = self._reported = time.monotonic()
        self._first = state.global_step
        if state.is_world_process_zero:
            # A resumed stage has steps in its log that the checkpoint does not know: they come again.
            with publish(self._path) as temporary:
                temporary.write_text("".join(map(_line, state.log_history)), encoding="utf-8")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        entry = state.log_history[-1]
        if "loss" not in entry:
            return
        self.moments.append(time.monotonic())
        self.steady.add(self._global_batch)
        if not math.isfinite(entry["loss"]):
            raise LossError(self._name, state.global_step, entry["loss"])
        if state.is_world_process_zero:
            self.write(entry)
            self._report(state, entry)

    def write(self, entry: dict[str, Any]) -> None:
        """Add a line to the file."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(entry))

    def _report(self, state: TrainerState, entry: dict[str, float]) -> None:
        now = time.monotonic()
        if now - self._reported < REPORT_SECONDS and state.global_step < state.max_steps:
            return
        self._reported = now
        rate = (state.global_step - self._first) / (now - self._started)
        logger.info(
            "%s: step %d of %d, loss %.4f, %.1f samples/s, %s left",
            self._name,
            state.global_step,
            state.max_steps,
            entry["loss"],
            rate * self._global_batch,
            duration((state.max_steps - state.global_step) / rate),
        )


def _line(entry: dict[str, Any]) -> str:
    kept = {key: entry[key] for key in ("step", "loss", "learning_rate", HELD_OUT) if key in entry}
    return json.dumps(kept) + "\n"

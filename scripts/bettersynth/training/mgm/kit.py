"""Training by the contest's kit: its own program, from a checkout that the user has, in the place of ours.

It gets what our training gets (training file, images, model folders, settings) in a folder `kit` of the stage's, whose
names are those it tells models apart by, and what it writes becomes what our training publishes. Its lines go to the
job's log, and the losses among them to `log.jsonl`. `docs/kit.md` says what is different.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import socket
import subprocess
import time
from collections import deque
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPVisionConfig, ConvNextConfig, GemmaConfig

from bettersynth.configuration.training import KIT_PROGRAM, Architecture, Finetune, Kit, Stage
from bettersynth.core.layout import CHECKPOINT
from bettersynth.core.publish import read_json, sha256_file, sha256_json
from bettersynth.core.steady import Steady
from bettersynth.runtime.patches.environment import ENVIRONMENT
from bettersynth.training.mgm import published
from bettersynth.training.mgm.model import MGMConfig
from bettersynth.training.mgm.trainer import REPORT_SECONDS, LossError, TrainingSummary

logger = logging.getLogger(__name__)

WORK = "kit"
"""Folder within a stage's in which the program runs; removed when the stage is done."""
GEMMA = "model_zoo/LLM/gemma/gemma-2b-it"
ADAPTER = "mm_projector.bin"
OUTPUT = "output"

LAST_LINES = 20
LOSS = re.compile(r"\{'loss': [^}]*\}")
"""What the transformers Trainer prints of a step, a progress bar before it on the same line or not."""


def identity(kit: Kit) -> dict[str, Any]:
    """What tells the checkout apart: sha256 of its program, and the git commit if it has one.

    Raises FileNotFoundError for a folder without the program, or without the Python to run it.
    """
    folder = Path(kit.path)
    for name in KIT_PROGRAM:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"training.kit.path: {folder} has no {name}; name the folder `toolkit/training` of the contest's kit"
            )
    if not Path(kit.python).is_file():
        raise FileNotFoundError(
            f"training.kit.python: there is no {kit.python}; name the Python that the kit was installed into"
        )
    return {"commit": _commit(folder), "program_sha256": sha256_json([sha256_file(folder / n) for n in KIT_PROGRAM])}


def _commit(folder: Path) -> str | None:
    """The checkout's commit, with `-dirty` for changed files; None for files that git does not know."""

    def git(*arguments: str) -> str | None:
        try:
            found = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
        except FileNotFoundError:
            return None
        return found.stdout.strip() if found.returncode == 0 else None

    return git("ls-files", "--error-unmatch", KIT_PROGRAM[0]) and git(
        "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"
    )


@dataclass(frozen=True)
class KitProgram:
    """The program of a checkout, for one recipe with one seed."""

    kit: Kit
    architecture: Architecture
    folders: dict[str, str]
    """Our model folders, by their names in the architecture."""
    seed: int

    def train_connector(
        self, name: str, stage: Stage, data: Path, images: str, folder: Path, stop_at: int | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Stage 1: what `connector_state` gives, and facts for the card; with `stop_at` only the first steps' facts."""
        work = self._prepare(folder)
        facts = self._train(name, stage, data, images, work, ["--tune_mm_mlp_adapter", "True"], stop_at)
        state = {} if stop_at else published.read_connector(work / OUTPUT / ADAPTER, self._config())
        shutil.rmtree(work)
        return state, facts

    def finetune(self, name: str, stage: Finetune, data: Path, connector: Path, folder: Path) -> dict[str, Any]:
        """Stage 2: publish `folder/checkpoint`; facts for the card."""
        work = self._prepare(folder)
        published.write_connector(load_file(connector), work / ADAPTER)
        options = ["--pretrain_mm_mlp_adapter", ADAPTER]
        facts = self._train(name, stage, data, stage.images, work, options)
        towers = {tower: Path(self.folders[tower]) for tower in ("vision_tower", "vision_tower_aux")}
        published.import_published(work / OUTPUT, folder / CHECKPOINT, **towers)
        shutil.rmtree(work)
        return facts

    def _prepare(self, folder: Path) -> Path:
        """A fresh folder to run in, with our models under the names that the program goes by."""
        work = folder / WORK
        shutil.rmtree(work, ignore_errors=True)
        for part, name in (("language_model", GEMMA), ("vision_tower", published.CLIP_FOLDER)):
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).symlink_to(Path(self.folders[part]).absolute())
        clip, convnext = (Path(self.folders[part]) for part in ("vision_tower", "vision_tower_aux"))
        published.write_open_clip(convnext, work / published.CONVNEXT_FOLDER, clip)
        return work

    def _config(self) -> MGMConfig:
        return MGMConfig(
            GemmaConfig.from_pretrained(self.folders["language_model"], local_files_only=True),
            CLIPVisionConfig.from_pretrained(self.folders["vision_tower"], local_files_only=True),
            ConvNextConfig.from_pretrained(self.folders["vision_tower_aux"], local_files_only=True),
            image_size_aux=self.architecture.image_size_aux,
        )

    def arguments(self, stage: Stage, data: Path, images: str, gpus: int) -> list[str]:
        """The program's arguments for what both stages have; the others are as in the kit's own script."""
        at_once = stage.device_batch * gpus
        if stage.global_batch % at_once:
            raise ValueError(
                f"global_batch {stage.global_batch} is no multiple of device_batch {stage.device_batch} × {gpus} GPUs; "
                "change `device_batch`"
            )
        values = {
            "deepspeed": Path(self.kit.path, "scripts/zero2_offload.json").absolute(),
            "model_name_or_path": GEMMA,
            "version": "gemma",
            "data_path": data.absolute(),
            "image_folder": Path(images).absolute(),
            "vision_tower": published.CLIP_FOLDER,
            "vision_tower_aux": published.CONVNEXT_FOLDER,
            "drop_path": self.architecture.drop_path > 0,
            "mm_projector_type": "mlp2x_gelu",
            "mm_vision_select_layer": -2,
            "mm_use_im_start_end": False,
            "mm_use_im_patch_token": False,
            "image_aspect_ratio": stage.image_aspect,
            "group_by_modality_length": stage.group_by_length,
            "image_size_aux": self.architecture.image_size_aux,
            "bf16": True,
            "tf32": True,
            "output_dir": OUTPUT,
            "num_train_epochs": stage.epochs,
            "per_device_train_batch_size": stage.device_batch,
            "gradient_accumulation_steps": stage.global_batch // at_once,
            "evaluation_strategy": "no",
            "save_strategy": "no",
            "learning_rate": stage.learning_rate,
            "weight_decay": stage.weight_decay,
            "warmup_ratio": stage.warmup_ratio,
            "lr_scheduler_type": "cosine",
            "logging_steps": 1,
            "model_max_length": stage.max_length,
            "gradient_checkpointing": stage.gradient_checkpointing,
            "dataloader_num_workers": stage.workers,
            "lazy_preprocess": True,
            "seed": self.seed,
            "report_to": "none",
        }
        return [text for key, value in values.items() for text in (f"--{key}", str(value))]

    def _train(
        self,
        name: str,
        stage: Stage,
        data: Path,
        images: str,
        work: Path,
        options: list[str],
        stop_at: int | None = None,
    ) -> dict[str, Any]:
        """Run the program to its end, or to its step `stop_at`; facts for the card."""
        gpus = torch.cuda.device_count()
        if not gpus:
            raise RuntimeError(
                f"{name}: the kit's program needs a GPU, and this job has none; give its rule `gpu` in the profile, or "
                "leave training.kit out"
            )
        # `--standalone` would unpickle what anybody sends to its port
        meeting = ["--master_addr=127.0.0.1", f"--master_port={_free_port()}"]
        torchrun = [str(Path(self.kit.python).absolute()), "-m", "torch.distributed.run", *meeting]
        program = str(Path(self.kit.path, KIT_PROGRAM[0]).absolute())
        command = [*torchrun, f"--nproc_per_node={gpus}", program, *options, *self.arguments(stage, data, images, gpus)]
        losses: list[float] = []
        steady = Steady()
        started = reported = time.monotonic()
        with (
            (work.parent / "log.jsonl").open("w", encoding="utf-8") as log,
            closing(_entries(command, name, work, self._environment())) as entries,
        ):
            for entry in entries:
                losses.append(entry["loss"])
                steady.add(stage.global_batch)
                step = len(losses)
                if not math.isfinite(entry["loss"]):
                    raise LossError(name, step, entry["loss"])
                kept = {"step": step, "loss": entry["loss"], "learning_rate": entry["learning_rate"]}
                print(json.dumps(kept), file=log, flush=True)
                if time.monotonic() - reported > REPORT_SECONDS:
                    reported = time.monotonic()
                    logger.info("%s, by the kit: step %d, loss %.4f", name, step, entry["loss"])
                if step == stop_at:
                    break
        if not losses:
            raise RuntimeError(f"{name}: the kit's program ended well, but no loss is among the lines that it printed")
        return {
            "rows": len(read_json(data)),
            "parameters": stage.model_dump(),
            "processes": gpus,
            **TrainingSummary(len(losses), losses, 0, time.monotonic() - started, [], steady, []).facts(
                stage.global_batch
            ),
        }

    def _environment(self) -> dict[str, str]:
        """Ours, without our modules and the network, and with the kit's modules and its Python's tools."""
        tools = str(Path(self.kit.python).absolute().parent)
        path = os.pathsep.join(filter(None, [tools, os.environ.get("PATH")]))
        return {**os.environ, **ENVIRONMENT, "PATH": path, "PYTHONPATH": str(Path(self.kit.path).absolute())}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _entries(command: list[str], name: str, work: Path, environment: dict[str, str]) -> Generator[dict[str, float]]:
    """Run the command in the folder `work`: print its lines, and give what the Trainer says in them of each step.

    Closed, it ends the command. Raises RuntimeError, with its last lines, when it fails.
    """
    last: deque[str] = deque(maxlen=LAST_LINES)
    with subprocess.Popen(
        command,
        cwd=work,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            for line in process.stdout or ():
                print(line, end="", flush=True)
                last.append(line)
                if found := LOSS.search(line):
                    yield {key: float(value) for key, value in re.findall(r"'(\w+)': ([^,}]+)", found[0])}
            process.wait()
        finally:
            process.terminate()
    if process.returncode:
        raise RuntimeError(
            f"{name}: the kit's program ended with code {process.returncode}. All it printed is in the job's log; its "
            f"last lines:\n{''.join(last)}"
        )

"""MGM-2B at its published size, with random weights: both training stages and answering, on one GPU or several.

Rates are end to end, from JPEG files like the contest's (short side 336, captions of 11 words) and conversations like
its instruction set's, through the project's own training and answering. A stage's rate is that of its median step: the
first one, and the first without images, compile what thousands of steps then have. Beside the rates stand the reference
run's, what each part of the work buys (forward and backward passes alone, each part on top of those before it), and the
loss of one step in plain fp32 and on the fast path.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import ROOT
from bettersynth.configuration.pool import Reading
from bettersynth.core.publish import publish, read_json, write_json

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor

    from bettersynth.training.mgm.data import ConversationDataset
    from bettersynth.training.mgm.model import MGMConfig, MGMForConditionalGeneration
    from bettersynth.training.mgm.processing import Processor

TOKENIZER = ROOT / "resources" / "miniature" / "models" / "gemma"
"""Any tokenizer of Gemma's class will do: the words are drawn from its vocabulary."""

REFERENCE = {"pretrain": 11.3, "finetune": 3.4}
"""Samples a second on each of the reference run's 4 GPUs (the write-up's logs: 200k in 4,424 s, 240k in 17,850 s)."""

PEAK = {"H100": 989.4e12, "H200": 989.4e12, "A100": 312e12}
"""Dense bf16 operations a second by the vendor's datasheet."""

PARTS = ["one_step", "what_each_part_buys", "pretrain", "finetune", "answers"]

TOLERANCE = 1e-3
"""Share by which one step's loss on the fast path may differ from that in plain fp32."""

QUESTIONS = 9377
"""TextVQA's 5,000 and MMBench's 4,377."""

TEXT = {
    "vocab_size": 256000,
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
}
VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
VISION_AUX = {"hidden_sizes": [192, 384, 768, 1536], "depths": [3, 3, 27, 3], "drop_path_rate": 0.1}
"""With stochastic depth, as the published code and `config/contest.yaml` train."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--steps", type=int, default=6, help="steps measured of each stage (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=8, help="processes that decode images (default: %(default)s)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="(default: all, in this order)")
    parser.add_argument("--images", type=int, default=256, help="different images (default: %(default)s)")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs that train together (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="folder to work in (default: a temporary one)")
    parser.set_defaults(device="cuda")


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Every figure; those of each part are printed as soon as they are there."""
    from bettersynth.training.mgm.model import MGMConfig

    config = MGMConfig(TEXT, VISION, VISION_AUX, image_size_aux=768)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if options.gpus > 1 and "LOCAL_RANK" not in os.environ:
            return _by_several_processes(options, folder)
        bench = Bench(config, folder, options)
        for part in (name for name in PARTS if name in options.parts):
            found = getattr(bench, part)()
            print(json.dumps(found), flush=True)
            figures |= found
    return figures


def _by_several_processes(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The figures of `gpus` processes that train together by torchrun, one for each GPU."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={options.gpus}"]
    given = {name: getattr(options, name) for name in ("steps", "workers", "images", "gpus")}
    arguments = [f"--{name}={value}" for name, value in given.items()]
    out = folder / "figures.json"
    script = ["-m", "bench", "mgm-training", f"--folder={folder}", f"--out={out}"]
    subprocess.run([*torchrun, *script, *arguments, "--parts", *options.parts], check=True)
    return dict(read_json(out)["figures"])


class Bench:
    """A model of random weights, on the GPU if there is one, and data to train it on. Its parts run in order."""

    def __init__(
        self, config: MGMConfig, folder: Path, options: argparse.Namespace, batches: dict[str, int] | None = None
    ) -> None:
        import torch

        self.options = options
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if "LOCAL_RANK" in os.environ and self.device.type == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        self.batches = {
            "one_step": 4,
            "pretrain": 256,
            "pretrain_device": 16,
            "finetune": 128,
            "finetune_device": 8,
            "answer": 64,
        }
        self.batches |= batches or {}
        self.folder = folder
        self.model = random_model(config, self.device)
        self.processor = _processor(config)
        self._words = sorted(word for word in self.processor.tokenizer.get_vocab() if word.isalpha())
        (folder / "images").mkdir(exist_ok=True)  # each of several processes draws the same
        for number in range(options.images):
            with publish(folder / "images" / f"{number}.jpg") as image:
                draw(number).save(image, format="jpeg", quality=90)

    def one_step(self) -> dict[str, float]:
        """Loss and gradient of one forward and backward pass in plain fp32, and on the fast path, compiled.

        No path is dropped. Raises ValueError when the losses differ by more than `TOLERANCE`.
        """
        import torch

        self._train_only("pretrain")
        self.model.eval()
        batch = self._batch("pretrain", self.batches["one_step"])
        self._attend("eager")
        plain, plain_gradient = self._loss_and_gradient(batch, "fp32")
        self._attend("sdpa")
        self._halve()
        self.model.compile_layers()
        fast, fast_gradient = self._loss_and_gradient(batch, "bf16")
        for layer in self.model.modules():
            layer._compiled_call_impl = None
        if abs(fast - plain) > TOLERANCE * plain:
            raise ValueError(f"one step's loss is {plain:.5f} in plain fp32, but {fast:.5f} on the fast path")
        cosine = torch.nn.functional.cosine_similarity(plain_gradient, fast_gradient, dim=0)
        return {
            "one_step_samples": self.batches["one_step"],
            "one_step_loss_fp32_eager": round(plain, 5),
            "one_step_loss_bf16_fast": round(fast, 5),
            "one_step_gradient_cosine": round(cosine.item(), 5),
        }

    def what_each_part_buys(self) -> dict[str, float]:
        """Stage 1's rate, forward and backward passes alone, as one part after the other is switched on."""
        import torch

        model = self.model
        self._train_only("pretrain")
        self._halve()
        batch = self._batch("pretrain", self.batches["pretrain_device"])
        model.gradient_checkpointing_enable({"use_reentrant": False})
        self._attend("eager")
        parts: list[tuple[str, Callable[[], Any]]] = [
            ("all_logits_eager_attention_checkpointing", lambda: None),
            ("logits_where_labels_are", lambda: None),
            ("sdpa", lambda: self._attend("sdpa")),
            ("channels_last", lambda: model.vision_tower_aux.to(memory_format=torch.channels_last)),  # type: ignore[call-arg]
            ("no_checkpointing", model.gradient_checkpointing_disable),
            ("compile", model.compile_layers),
        ]
        figures: dict[str, float] = {}
        for number, (name, switch_on) in enumerate(parts):
            switch_on()
            rate, memory = self._passes(batch, all_logits=number == 0)
            figures[f"pretrain_passes_{number}_{name}_samples_per_second"] = rate
            figures[f"pretrain_passes_{number}_{name}_peak_gb"] = memory
        return figures

    def pretrain(self) -> dict[str, float]:
        """Stage 1, end to end."""
        self._train_only("pretrain")
        return self._stage("pretrain")

    def finetune(self) -> dict[str, float]:
        """Stage 2, end to end."""
        import torch

        torch.compiler.reset()  # as in a process of its own: what was compiled is for frozen weights in bf16
        self.model.language_model.float()
        self._train_only("finetune")
        return self._stage("finetune")

    def answers(self) -> dict[str, float]:
        """Questions a second, with answers of 8 tokens: the benchmarks' are words and letters."""
        import torch

        from bettersynth.training.mgm.generation import Answerer, Question

        batch = self.batches["answer"]
        draws = random.Random(0)
        files = sorted((self.folder / "images").iterdir())
        questions = [
            Question(number, self._text(draws, draws.randint(10, 70)), files[number % len(files)])
            for number in range(8 * batch)
        ]
        self.model.zero_grad()
        self.model.requires_grad_(False)
        half = torch.float16 if self.device.type == "cuda" else torch.float32
        answerer = Answerer(self.model.to(half), self.processor)  # type: ignore[arg-type]
        with torch.compiler.set_stance("force_eager"):
            list(answerer.answer(questions[:batch], 8, batch))
            self._reset_memory()
            started = time.monotonic()
            list(answerer.answer(questions, 8, batch))
            rate = len(questions) / (time.monotonic() - started)
        return {
            "answer_batch_questions": batch,
            "answer_questions_per_second": round(rate, 2),
            "answer_textvqa_and_mmbench_minutes": round(QUESTIONS / rate / 60, 2),
            "answer_peak_gb": self._memory(),
        }

    # passes

    def _stage(self, name: str) -> dict[str, float]:
        """One stage through `train_stage`: a step to warm up, then the measured ones."""
        from bettersynth.configuration.training import Stage
        from bettersynth.training.mgm.trainer import train_stage

        steps, batch, device_batch = 1 + self.options.steps, self.batches[name], self.batches[f"{name}_device"]
        stage = Stage(
            global_batch=batch,
            device_batch=device_batch,
            learning_rate=1e-3 if name == "pretrain" else 2e-5,
            group_by_length=name == "finetune",
            gradient_checkpointing=name == "finetune",
            workers=self.options.workers,
        )
        self._halve()
        operations = self._operations(name)
        self._reset_memory()
        outcome = train_stage(
            self.model,
            self._dataset(name, steps * batch),
            stage,
            folder=self.folder / name,
            inputs={},
            seed=1,
            name=name,
            pad_token_id=self.processor.tokenizer.pad_token_id,
        )
        seconds = [after - before for before, after in itertools.pairwise(outcome.moments)]
        rate = batch / statistics.median(seconds)
        figures = {
            f"{name}_samples_per_second": round(rate, 2),
            f"{name}_median_step_seconds": round(statistics.median(seconds), 2),
            **{f"{name}_step_{number}_seconds": round(each, 2) for number, each in enumerate(seconds, 2)},
            f"{name}_gpus": self.options.gpus,
            f"{name}_reference_samples_per_second_a_gpu": REFERENCE[name],
            f"{name}_times_reference": round(rate / self.options.gpus / REFERENCE[name], 2),
            f"{name}_tflop_a_sample": round(operations / 1e12, 3),
            f"{name}_device_batch": device_batch,
            f"{name}_peak_gb": self._memory(),
        }
        if peak := self._peak_operations():
            figures[f"{name}_model_flop_utilisation"] = round(rate * operations / peak / self.options.gpus, 4)
        return figures

    def _passes(self, batch: dict[str, Tensor], all_logits: bool = False, repeat: int = 3) -> tuple[float, float]:
        """Samples a second and peak memory of forward and backward passes over one batch in GPU memory."""
        self.model.train()
        self._loss(batch, "bf16", all_logits).backward()
        self._reset_memory()
        started = time.monotonic()
        for _ in range(repeat):
            self._loss(batch, "bf16", all_logits).backward()
        self._synchronise()
        rate = repeat * len(batch["input_ids"]) / (time.monotonic() - started)
        return round(rate, 2), self._memory()

    def _loss(self, batch: dict[str, Tensor], precision: str, all_logits: bool = False) -> Tensor:
        import torch

        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"):
            if not all_logits:
                return self.model(**batch).loss
            inputs = {key: batch[key] for key in ("input_ids", "pixel_values")}
            logits = self.model(**inputs, use_cache=False).logits
            logits, labels = logits[:, :-1].float().flatten(0, 1), batch["labels"][:, 1:].flatten()
            return torch.nn.functional.cross_entropy(logits, labels)

    def _loss_and_gradient(self, batch: dict[str, Tensor], precision: str) -> tuple[float, Tensor]:
        import torch

        self.model.zero_grad()
        loss = self._loss(batch, precision)
        loss.backward()
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        return loss.item(), torch.cat([gradient.double().flatten() for gradient in gradients])

    def _operations(self, name: str) -> float:
        """Floating-point operations that a sample of a stage takes, forward and backward, nothing computed twice."""
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        batch = self._batch(name, min(4, self.batches[f"{name}_device"]))
        implementation = self.model.language_model.config._attn_implementation
        self._attend("eager")
        with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
            self._loss(batch, "bf16").backward()
        self._attend(implementation)
        self.model.zero_grad()
        return counter.get_total_flops() / len(batch["input_ids"])

    def _attend(self, implementation: str) -> None:
        for part in (self.model.language_model, self.model.vision_tower):
            part.set_attn_implementation(implementation)

    def _train_only(self, name: str) -> None:
        self.model.requires_grad_(False)
        self.model.connector.requires_grad_(True)
        self.model.language_model.requires_grad_(name == "finetune")

    def _halve(self) -> None:
        """What stage 1 does not train, in bf16."""
        import torch

        for parameter in self.model.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)

    # data

    def _batch(self, name: str, rows: int) -> dict[str, Tensor]:
        """A batch as training makes it, in GPU memory."""
        from bettersynth.training.mgm.data import Collator
        from bettersynth.training.mgm.trainer import GPU_LENGTHS

        dataset = self._dataset(name, 4 * rows)
        collate = Collator(self.processor.tokenizer.pad_token_id, self.processor.image_size, multiple=GPU_LENGTHS)
        order = sorted(range(len(dataset)), key=dataset.lengths.__getitem__)
        middle = order[len(order) // 2 :][:rows]
        return {key: value.to(self.device) for key, value in collate([dataset[row] for row in middle]).items()}

    def _dataset(self, name: str, rows: int) -> ConversationDataset:
        """Captions, or conversations of which one in sixteen has no image."""
        from bettersynth.training.mgm.data import ConversationDataset

        draws = random.Random(f"{name} {rows}")
        write = self._caption if name == "pretrain" else self._conversation
        path = self.folder / f"{name}-{rows}.json"
        write_json(path, [write(number, draws) for number in range(rows)], indent=None)
        find = (self.folder / "images").joinpath
        return ConversationDataset(path, find, self.processor, max_length=2048, reading=Reading(10_000_000))

    def _caption(self, number: int, draws: random.Random) -> dict[str, Any]:
        turns = [f"{self._text(draws, 9)}\n<image>", self._text(draws, draws.randint(3, 19))]
        return {"id": str(number), "image": f"{number % self.options.images}.jpg", "conversations": _turns(turns)}

    def _conversation(self, number: int, draws: random.Random) -> dict[str, Any]:
        turns = [self._text(draws, draws.randint(8, 60)) for _ in range(2 * draws.randint(1, 4))]
        if number % 16 == 0:
            return {"id": str(number), "conversations": _turns(turns)}
        turns[0] = f"<image>\n{turns[0]}"
        return {"id": str(number), "image": f"{number % self.options.images}.jpg", "conversations": _turns(turns)}

    def _text(self, draws: random.Random, words: int) -> str:
        return " ".join(draws.choices(self._words, k=words))

    # the GPU

    def _synchronise(self) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _reset_memory(self) -> None:
        import torch

        self._synchronise()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def _memory(self) -> float:
        """Most memory allocated since `_reset_memory`, in GB."""
        import torch

        return round(torch.cuda.max_memory_allocated() / 1e9, 2) if self.device.type == "cuda" else 0.0

    def _peak_operations(self) -> float | None:
        import torch

        name = torch.cuda.get_device_name() if self.device.type == "cuda" else ""
        return next((peak for card, peak in PEAK.items() if card in name), None)


def random_model(config: MGMConfig, device: torch.device) -> MGMForConditionalGeneration:
    """A model of random weights, of the spread that real ones have."""
    import torch

    from bettersynth.training.mgm.model import MGMForConditionalGeneration

    torch.manual_seed(0)
    with device:
        model = MGMForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("layer_scale_parameter"):
                parameter.fill_(0.1)
            elif parameter.ndim > 1 and not name.startswith("connector"):
                parameter.normal_(std=0.02)
    model.tie_weights()
    return model


def _processor(config: MGMConfig) -> Processor:
    from transformers import AutoTokenizer, CLIPImageProcessor

    from bettersynth.training.mgm.processing import Processor

    return Processor(AutoTokenizer.from_pretrained(TOKENIZER, local_files_only=True), CLIPImageProcessor(), config)


def draw(number: int) -> Image.Image:
    """A soft random picture, of short side 336 and of the pool's shapes."""
    import numpy as np
    from PIL import Image

    draws = np.random.default_rng(number)
    long = int(336 * draws.uniform(1, 1.8))
    width, height = (long, 336) if number % 3 else (336, long)
    coarse = draws.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    soft = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noise = draws.normal(0, 8, soft.shape).astype(np.int16)
    return Image.fromarray((soft + noise).clip(0, 255).astype(np.uint8))


def _turns(texts: list[str]) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]

"""A trained model's answers: to any questions about pictures, and to the two benchmarks in the kit's form."""

from __future__ import annotations

import base64
import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from PIL import Image
from torch.nn import functional

from bettersynth import versions
from bettersynth.configuration.types import Configuration, MMBench, TextVQA
from bettersynth.images import ImageProblem, open_image, resolve
from bettersynth.layout import BENCHMARKS, Layout
from bettersynth.mgm.model import MGMForConditionalGeneration
from bettersynth.mgm.processing import ConversationError, Processor
from bettersynth.mgm.training import CARD, CHECKPOINT
from bettersynth.progress import progress
from bettersynth.publish import Card, publish, read_json, sha256_file, write_json

OPTIONS = "ABCD"
LETTER_ONLY = "Answer with the option's letter from the given choices directly."
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


class Question(NamedTuple):
    """A prompt, as the user's turn has it after `<image>`, and its picture: an image, a file, or a file's bytes."""

    id: Any
    prompt: str
    image: Image.Image | Path | bytes | None


class Answerer:
    """A model folder opened for answering."""

    def __init__(self, folder: str | Path, precision: str = "fp16", max_pixels: int = 100_000_000) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = MGMForConditionalGeneration.from_pretrained(folder, local_files_only=True, dtype=DTYPES[precision])
        self.model = model.to(self.device).eval()
        self.processor = Processor.load(folder, folder, model.config)
        self._max_pixels = max_pixels

    def answer(self, questions: list[Question], max_new_tokens: int) -> list[str]:
        """Answers to one batch: decoded greedily up to `<eos>`, without special tokens, stripped."""
        inputs = self._inputs(questions)
        tokenizer = self.processor.tokenizer
        ids = self.model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def _inputs(self, questions: list[Question]) -> dict[str, torch.Tensor | None]:
        """Tensors of a batch, padded on the left so that every answer begins at the same position."""
        ids, images = zip(*map(self._prepared, questions), strict=True)
        pixels = [image for image in images if image is not None]
        length = max(map(len, ids))
        pad = self.processor.tokenizer.pad_token_id
        input_ids = torch.stack([functional.pad(row, (length - len(row), 0), value=pad) for row in ids])
        starts = torch.tensor([length - len(row) for row in ids])
        return {
            "input_ids": input_ids.to(self.device),
            "attention_mask": (torch.arange(length) >= starts[:, None]).long().to(self.device),
            "pixel_values": torch.stack(pixels).to(self.device) if pixels else None,
        }

    def _prepared(self, question: Question) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Ids and pixels of one question."""
        try:
            ids = self.processor.encode_question(question.prompt, question.image is not None)
            image = None if question.image is None else _opened(question.image, self._max_pixels)
        except (ConversationError, ImageProblem) as problem:
            raise ValueError(f"question {question.id}: {problem}") from problem
        return torch.from_numpy(ids).long(), None if image is None else self.processor.pixels(image)


def _opened(image: Image.Image | Path | bytes, max_pixels: int) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if isinstance(image, Path):
        return open_image(image, max_pixels)
    with tempfile.NamedTemporaryFile() as file:
        file.write(image)
        file.flush()
        return open_image(file.name, max_pixels)


def answer_questions(
    folder: str | Path,
    questions: Iterable[Question],
    *,
    max_new_tokens: int,
    batch: int = 16,
    precision: str = "fp16",
    max_pixels: int = 100_000_000,
) -> list[str]:
    """The answers of the model in `folder`, in the order of the questions; the same whatever `batch` is.

    (In half precision, sums of another order may now and then tip the choice between two nearly equal words.)
    """
    answerer = Answerer(folder, precision, max_pixels)
    asked = list(questions)
    batches = [asked[start : start + batch] for start in range(0, len(asked), batch)]
    answers: list[str] = []
    for questions_of_batch in progress(batches, len(batches), f"batches of {batch} questions"):
        answers += answerer.answer(questions_of_batch, max_new_tokens)
    return answers


# --- the benchmarks ----------------------------------------------------------------------------------


def write_answers(benchmark: str, recipe: str, seed: int, configuration: Configuration, layout: Layout) -> None:
    """Ask a run's model a benchmark's questions and publish `answers.jsonl`, one line for each.

    The run of a seed that was stopped after the probe has no model: its file is empty. Asked the same of the same
    model again, the card is published again and nothing is generated.
    """
    path, card_path = layout.answers(recipe, seed, benchmark), layout.answers_card(recipe, seed, benchmark)
    folder = layout.finetune(recipe, seed)
    trained = read_json(folder / CARD)
    if trained["status"] == "stopped":
        _write_lines(path, [])
        Card(recipe=recipe, seed=seed, benchmark=benchmark, status="stopped").write(card_path)
        return
    evaluation = configuration.evaluation
    if evaluation is None:
        raise ValueError("the configuration has no `evaluation`: name the benchmarks' files there")
    if benchmark == "textvqa":
        asked, max_new_tokens = _textvqa(evaluation.textvqa), evaluation.textvqa.max_new_tokens
    elif benchmark == "mmbench":
        asked, max_new_tokens = _mmbench(evaluation.mmbench), evaluation.mmbench.max_new_tokens
    else:
        raise ValueError(f"unknown benchmark {benchmark!r}; known: {', '.join(BENCHMARKS)}")
    section = getattr(evaluation, benchmark)
    inputs = {
        "model_sha256": trained["sha256"],
        "questions_sha256": sha256_file(section.questions),
        "max_new_tokens": max_new_tokens,
        "precision": evaluation.precision,
        "version": versions.ANSWER,
    }
    done = card_path.with_name("done.json")
    if done.exists() and path.exists():
        before = read_json(done)
        if before["inputs"] == inputs and before["sha256"] == sha256_file(path):
            write_json(card_path, before)
            return
    if not (folder / CHECKPOINT).is_dir():
        raise FileNotFoundError(f"{folder / CHECKPOINT}: gone; make it again: snakemake --force {folder / CARD}")
    card = Card(recipe=recipe, seed=seed, benchmark=benchmark, status="done", inputs=inputs)
    texts = answer_questions(
        folder / CHECKPOINT,
        (question for question, _ in asked),
        max_new_tokens=max_new_tokens,
        batch=evaluation.batch,
        precision=evaluation.precision,
        max_pixels=configuration.pool.max_pixels,
    )
    model_id = f"{recipe}-seed-{seed}"
    _write_lines(
        path,
        [line | {"text": text, "model_id": model_id} for (_, line), text in zip(asked, texts, strict=True)],
    )
    write_json(done, card.write(card_path, rows=len(asked), sha256=sha256_file(path)))


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    with publish(path) as temporary:
        temporary.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def _textvqa(section: TextVQA) -> list[tuple[Question, dict[str, Any]]]:
    """Questions, and what their answers' lines begin with."""
    with Path(section.questions).open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [
        (
            Question(row["question_id"], row["text"], resolve(section.images, row["image"])),
            {"question_id": row["question_id"], "prompt": row["text"]},
        )
        for row in rows
    ]


def _mmbench(section: MMBench) -> list[tuple[Question, dict[str, Any]]]:
    """Questions, and what their answers' lines begin with; rotations of the options are rows of their own."""
    table = pd.read_csv(section.questions, sep="\t", dtype=str)
    table = table.astype(object).where(table.notna(), None)
    asked = []
    for row in table.to_dict("records"):
        options = list(_options(row))
        prompt = mmbench_prompt(row["question"], _filled(row.get("hint")), options)
        image = base64.b64decode(row["image"], validate=True)
        index = int(row["index"])
        line = {
            "question_id": index,
            "round_id": 0,
            "prompt": prompt,
            "options": options,
            "option_char": list(OPTIONS[: len(options)]),
            "answer_id": hashlib.sha256(f"{index} {prompt}".encode()).hexdigest()[:22],
            "metadata": {},
        }
        asked.append((Question(index, f"{prompt}\n{LETTER_ONLY}", image), line))
    return asked


def _options(row: dict[str, Any]) -> Iterator[str]:
    """The options in order, up to the first empty one."""
    for letter in OPTIONS:
        option = _filled(row.get(letter))
        if option is None:
            return
        yield option


def _filled(cell: str | None) -> str | None:
    """The cell, or None for what the kit takes for an empty one."""
    return None if cell is None or cell.lower() in ("nan", "none") else cell


def mmbench_prompt(question: str, hint: str | None, options: list[str]) -> str:
    """Hint, question and lettered options, each on its line."""
    lettered = [f"{letter}. {option}" for letter, option in zip(OPTIONS, options, strict=False)]
    return "\n".join([*([] if hint is None else [hint]), question, *lettered])

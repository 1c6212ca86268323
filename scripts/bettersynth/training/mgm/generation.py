"""A trained model's answers: to any questions about pictures, and to the two benchmarks in the kit's form."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch.nn import functional

from bettersynth.configuration.evaluation import MMBench, TextVQA
from bettersynth.configuration.pool import USUAL, Reading
from bettersynth.configuration.types import Configuration
from bettersynth.core import versions
from bettersynth.core.layout import BENCHMARKS, CARD, CHECKPOINT, Layout
from bettersynth.core.progress import progress
from bettersynth.core.publish import Card, publish, read_json, sha256_file, write_json
from bettersynth.pool.images import ImageProblem, open_image, resolve, rgb
from bettersynth.runtime.devices import attention_of_many_shapes
from bettersynth.training.mgm.model import MGMForConditionalGeneration
from bettersynth.training.mgm.processes import gathered, is_main_process
from bettersynth.training.mgm.processing import ConversationError, Processor

OPTIONS = "ABCD"
LETTER_ONLY = "Answer with the option's letter from the given choices directly."
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


class Question(NamedTuple):
    """A prompt, as the user's turn has it after `<image>`, and its picture: an image, a file, or a file's bytes."""

    id: Any
    prompt: str
    image: Image.Image | Path | bytes | None


class Answerer:
    """A model that answers questions, greedily."""

    def __init__(self, model: MGMForConditionalGeneration, processor: Processor, reading: Reading = USUAL) -> None:
        self.model = model.eval()
        self.processor = processor
        self._reading = reading

    @classmethod
    def open(cls, folder: str | Path, precision: str = "fp16", reading: Reading = USUAL) -> Answerer:
        """The model of a folder, on the GPU if there is one."""
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else "cpu"
        model = MGMForConditionalGeneration.from_pretrained(folder, local_files_only=True, dtype=DTYPES[precision])
        return cls(model.to(device), Processor.load(folder, folder, model.config), reading)

    def answer(self, questions: Sequence[Question], max_new_tokens: int, batch: int) -> Iterator[tuple[int, str]]:
        """Numbers of the questions, and their answers: decoded up to `<eos>`, without special tokens, stripped.

        Questions of like length are answered together, the longest first, while the next batches' images are decoded.
        In one of several processes, each answers its share of the batches.
        """
        ids = [self._ids(question) for question in questions]
        order = sorted(range(len(questions)), key=lambda number: -len(ids[number]))
        batches = [order[start : start + batch] for start in range(0, len(order), batch)]
        batches = batches[int(os.environ.get("RANK", "0")) :: int(os.environ.get("WORLD_SIZE", "1"))]
        prepared = _ahead(batches, lambda number: self._pixels(questions[number]))
        for numbers, pixels in progress(prepared, len(batches), f"batches of {batch} questions"):
            texts = self._generate([ids[number] for number in numbers], pixels, max_new_tokens)
            yield from zip(numbers, texts, strict=True)

    def _generate(self, ids: list[torch.Tensor], pixels: list[torch.Tensor | None], max_new_tokens: int) -> list[str]:
        """Answers to one batch, padded on the left so that every answer begins at the same position."""
        tokenizer, device = self.processor.tokenizer, self.model.device
        images = [image for image in pixels if image is not None]
        length = max(map(len, ids))
        input_ids = torch.stack(
            [functional.pad(row, (length - len(row), 0), value=tokenizer.pad_token_id) for row in ids]
        )
        starts = torch.tensor([length - len(row) for row in ids])
        with attention_of_many_shapes():
            answers = self.model.generate(
                input_ids=input_ids.to(device),
                attention_mask=(torch.arange(length) >= starts[:, None]).long().to(device),
                pixel_values=torch.stack(images).to(device) if images else None,
                do_sample=False,
                max_new_tokens=max_new_tokens,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        return [text.strip() for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]

    def _ids(self, question: Question) -> torch.Tensor:
        try:
            return torch.from_numpy(self.processor.encode_question(question.prompt, question.image is not None)).long()
        except ConversationError as problem:
            raise ValueError(f"question {question.id}: {problem}") from problem

    def _pixels(self, question: Question) -> torch.Tensor | None:
        if question.image is None:
            return None
        try:
            return self.processor.pixels(self._opened(question.image)).to(self.model.dtype)
        except ImageProblem as problem:
            raise ValueError(f"question {question.id}: {problem}") from problem

    def _opened(self, image: Image.Image | Path | bytes) -> Image.Image:
        return rgb(image, self._reading) if isinstance(image, Image.Image) else open_image(image, self._reading)


def _ahead(batches: list[list[int]], prepare: Callable[[int], Any]) -> Iterator[tuple[list[int], list[Any]]]:
    """Each batch with what `prepare` makes of its members, in threads, two batches ahead."""
    with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
        waiting: deque[tuple[list[int], list[Future[Any]]]] = deque()
        for batch in batches:
            waiting.append((batch, [pool.submit(prepare, number) for number in batch]))
            if len(waiting) > 2:
                numbers, results = waiting.popleft()
                yield numbers, [result.result() for result in results]
        for numbers, results in waiting:
            yield numbers, [result.result() for result in results]


def answer_questions(
    folder: str | Path,
    questions: Iterable[Question],
    *,
    max_new_tokens: int,
    batch: int = 16,
    precision: str = "fp16",
    reading: Reading = USUAL,
) -> list[str]:
    """The answers of the model in `folder`, in the order of the questions; the same whatever `batch` is.

    In one of several processes, each answers a share and gets all answers. (In half precision, sums of another order
    may now and then tip the choice between two nearly equal words.)
    """
    asked = list(questions)
    answerer = Answerer.open(folder, precision, reading)
    answers = gathered(dict(answerer.answer(asked, max_new_tokens, batch)))
    return [answers[number] for number in range(len(asked))]


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
        reading=configuration.pool.reading,
    )
    if not is_main_process():
        return
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
    import pandas as pd  # half a second, which the other benchmark need not spend

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

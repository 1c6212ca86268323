"""A trained model's answers to questions about pictures."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn import functional

from bettersynth.configuration.benchmark import Question
from bettersynth.configuration.pool import USUAL, Reading
from bettersynth.core.progress import progress
from bettersynth.core.steady import Steady
from bettersynth.pool.images import ImageProblem, open_image, rgb
from bettersynth.runtime.devices import attention_of_many_shapes
from bettersynth.runtime.patches.weights import open_model
from bettersynth.training.mgm.model import MGMForConditionalGeneration
from bettersynth.training.mgm.processes import gathered, place_among_processes
from bettersynth.training.mgm.processing import ConversationError, Processor

__all__ = ["Answerer", "Question", "answer_questions"]

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


class Answerer:
    """A model that answers questions, greedily."""

    def __init__(self, model: MGMForConditionalGeneration, processor: Processor, reading: Reading = USUAL) -> None:
        self.model = model.eval()
        self.processor = processor
        self._reading = reading

    @classmethod
    def open(cls, folder: str | Path, precision: str = "fp16", reading: Reading = USUAL) -> Answerer:
        """The model of a folder, on the GPU if there is one."""
        device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else "cpu"
        model = open_model(MGMForConditionalGeneration, folder, dtype=DTYPES[precision])
        return cls(model.to(device), Processor.load(folder, folder, model.config), reading)

    def answer(
        self, questions: Sequence[Question], max_new_tokens: int, batch: int, steady: Steady | None = None
    ) -> Iterator[tuple[int, str]]:
        """Numbers of the questions, and their answers: decoded up to `<eos>`, without special tokens, stripped.

        Questions of like length are answered together, the longest first, while the next batches' images are decoded.
        In one of several processes, each answers its share of the batches; `steady` counts those of all.
        """
        ids = [self._ids(question) for question in questions]
        order = sorted(range(len(questions)), key=lambda number: -len(ids[number]))
        batches = [order[start : start + batch] for start in range(0, len(order), batch)]
        process, processes = place_among_processes()
        batches = batches[process::processes]
        prepared = _ahead(batches, lambda number: self._pixels(questions[number]))
        for numbers, pixels in progress(prepared, len(batches), f"batches of {batch} questions"):
            texts = self._generate([ids[number] for number in numbers], pixels, max_new_tokens)
            if steady:
                steady.add(len(numbers) * processes)
            yield from zip(numbers, texts, strict=True)

    def answers(
        self, questions: Iterable[Question], max_new_tokens: int, batch: int, steady: Steady | None = None
    ) -> list[str]:
        """All answers in the order of the questions; in one of several processes, those of the others with them."""
        asked = list(questions)
        found = gathered(dict(self.answer(asked, max_new_tokens, batch, steady)))
        return [found[number] for number in range(len(asked))]

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
    return Answerer.open(folder, precision, reading).answers(questions, max_new_tokens, batch)

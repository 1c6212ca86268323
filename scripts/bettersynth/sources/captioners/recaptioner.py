"""The generator of the verb `recaption`: a new caption for every image of a record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bettersynth.configuration.generators import BestBy, Captioner
from bettersynth.configuration.pool import Reading
from bettersynth.configuration.types import Configuration
from bettersynth.core.digests import sha256_folder
from bettersynth.core.raw import Reason
from bettersynth.core.records import Record, caption_of, variant_id
from bettersynth.core.seeding import record_seed
from bettersynth.operators.batched.load import load_scorer
from bettersynth.operators.scoring import operator_facts
from bettersynth.pool.images import ImageProblem, ImageReason, ImageRoots, check_image
from bettersynth.runtime.devices import BatchSize, default_device
from bettersynth.sources.base import Generation, GeneratorError, Made, image_key, prepare_offline
from bettersynth.sources.captioners.choice import candidate_problem, captioned_text, keep_candidate
from bettersynth.sources.captioners.families import Family, open_family
from bettersynth.sources.captioners.reading import Group, Reader, Request, read_groups
from bettersynth.sources.captioners.slots import Draw, Slots, places_for
from bettersynth.sources.captioners.vllm_engine import VllmWriter, vllm_version

if TYPE_CHECKING:
    from bettersynth.operators.batched.scorer import BatchScorer

GROUP = 64
"""Images that the model sees in one forward pass: enough to keep a large GPU busy, and rows free up soon enough."""

Candidates = list[str]
Answer = list[Candidates] | str
"""Candidates for each image of a record, or the reason why it has none."""


class Recaptioner:
    """Writes captions for records, many at a time, and makes new records of those that stay."""

    resumes = True

    def __init__(
        self, captioner: str, seed: int, configuration: Configuration, roots: ImageRoots, *, keep_original: bool = False
    ) -> None:
        self.settings = configuration.captioners[captioner]
        self.seed = seed
        self.variants = keep_original or self.settings.keep == "all"
        self.roots = roots
        self._configuration = configuration
        self._folder = Path(configuration.models[self.settings.model].path)
        self.facts: dict[str, Any] = {
            "seed": self.seed,
            "captioner": self.settings.model_dump(mode="json", exclude={"model", "batch", "workers"}),
            "model_sha256": sha256_folder(self._folder),
            "variants": self.variants,
        }
        if self.settings.engine == "vllm":
            self.facts["vllm"] = vllm_version()
        if isinstance(self.settings.keep, BestBy):
            self.facts["best_by"] = operator_facts(self.settings.keep.operator, configuration)

    @cached_property
    def family(self) -> Family:
        """The captioning model, opened when the first caption is needed."""
        prepare_offline()
        return open_family(self.settings, self._folder, default_device())

    def open(self) -> None:
        """Open the captioning model now."""
        _ = self.family.model

    @cached_property
    def _writer(self) -> Writer | VllmWriter:
        engine = VllmWriter if self.settings.engine == "vllm" else Writer
        return engine(self.family, self.seed, self._configuration.pool.reading)

    @cached_property
    def _scorer(self) -> BatchScorer:
        """The operator that candidates are compared by."""
        assert isinstance(self.settings.keep, BestBy)
        return load_scorer([self.settings.keep.operator], self._configuration)

    def make(self, records: Sequence[Record]) -> Iterator[Made]:
        """The generations of the records, a group's worth at a time, as their captions get done."""
        pending = _Pending(len(records))
        requests = []
        for place, record in enumerate(records):
            try:
                requests += pending.ask(place, record, self.roots)
            except ImageProblem as problem:
                if problem.reason == ImageReason.CHANGED:
                    raise GeneratorError(f"record {record.id}: {problem}") from None
                pending.fail(place, str(problem.reason))
        for request, candidates in self._writer.write(requests) if requests else ():
            pending.answer(request, candidates)
            if len(pending.complete) >= min(GROUP, self.settings.batch):
                yield self._generations(records, pending.take())
        yield self._generations(records, pending.take())

    def _generations(self, records: Sequence[Record], answers: dict[int, Answer]) -> Made:
        """The records made new from the candidates of each of their images, or the reason that there are none."""
        texts = {place: self._texts(records[place], answer) for place, answer in answers.items()}
        if isinstance(self.settings.keep, BestBy):
            texts = self._best(records, texts, self.settings.keep)
        several = self.settings.candidates > 1
        made = {place: self._generation(records[place], found) for place, found in texts.items()}
        return {
            place: generation._replace(candidates=answers[place]) if several and generation.records else generation
            for place, generation in made.items()
        }

    def _texts(self, record: Record, answer: Answer) -> list[str] | str:
        """Texts that stay for a record (those to be compared, where the best one stays), or why there is none."""
        if isinstance(answer, str):
            return answer
        problems = [[candidate_problem(caption, self.settings) for caption in candidates] for candidates in answer]
        good = [number for number, found in enumerate(zip(*problems, strict=True)) if not any(found)]
        if not good:
            return next(problem for found in problems for problem in found if problem)
        choices = [[candidates[number] for number in good] for candidates in answer]
        if self.settings.keep == "random_any" or self.settings.keep == "similar_one_simhash":
            original, mode = caption_of(record.text), self.settings.keep
            captions = [
                keep_candidate(candidates, original, mode, self.seed, image_key(record, number))
                for number, candidates in enumerate(choices)
            ]
            return [captioned_text(record.text, captions)]
        return [captioned_text(record.text, captions) for captions in zip(*choices, strict=True)]

    def _best(
        self, records: Sequence[Record], texts: dict[int, list[str] | str], keep: BestBy
    ) -> dict[int, list[str] | str]:
        """Of each record's texts the one that the operator scores highest, the first of equals."""
        asked = [(place, text) for place, found in texts.items() if not isinstance(found, str) for text in found]
        if not asked:
            return texts
        scored = self._scorer.score([records[place]._replace(text=text) for place, text in asked], self.roots)
        best: dict[int, tuple[float, str]] = {}
        for (place, text), stats in zip(asked, scored[keep.operator].stats, strict=True):
            values = stats[keep.stat or next(iter(stats))]
            value = -np.inf if values is None else float(np.mean(values))  # one that cannot be scored is the worst
            if place not in best or value > best[place][0]:
                best[place] = value, text
        return texts | {place: [text] for place, (_, text) in best.items()}

    def _generation(self, record: Record, texts: list[str] | str) -> Generation:
        if isinstance(texts, str):
            return Generation([], texts)
        ids = [variant_id(record.id, number) for number in range(1, len(texts) + 1)] if self.variants else [record.id]
        return Generation([record._replace(id=key, text=text) for key, text in zip(ids, texts, strict=True)])


class Writer:
    """Lets a captioner write for many images at one time, with as many rows as fit into the GPU's memory."""

    def __init__(self, family: Family, seed: int, reading: Reading) -> None:
        self.family = family
        self.settings: Captioner = family.settings
        self.seed = seed
        self.reading = reading
        self.batch = BatchSize(self.settings.batch)

    def write(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Candidates | str]]:
        """Each image's candidates, or the reason why it has none, as they get done."""
        left = dict.fromkeys(self._ordered(requests))
        while left:
            try:
                for request, answer in self._written(list(left)):
                    del left[request]
                    yield request, answer
                continue
            except torch.OutOfMemoryError:
                pass  # the traceback, which holds on to the memory, is gone after this
            self.batch.halve(next(iter(left)).key)

    def _ordered(self, requests: Sequence[Request]) -> Sequence[Request]:
        """Images of one shape together, the largest first, where a shape decides the length of the prompt."""
        if not self.family.by_size:
            return requests
        return sorted(requests, key=self._size, reverse=True)

    def _size(self, request: Request) -> tuple[int, int, str]:
        try:
            width, height = check_image(request.file, self.reading)
        except ImageProblem:
            return 0, 0, request.key
        return width * height, width, request.key

    def _written(self, requests: list[Request]) -> Iterator[tuple[Request, Candidates | str]]:
        size = min(GROUP, self.batch.size)
        groups = [requests[start : start + size] for start in range(0, len(requests), size)]
        # Sums round differently in batches of another size: on a GPU, where half precision shows it, all have one.
        reader = Reader(self.family, size if self.family.device == "cuda" else 0, self.reading)
        rows = self.batch.size if self.family.device == "cuda" else min(self.batch.size, len(requests))
        read = read_groups(reader, groups, self.settings.workers)
        yield from self._encoded(read) if self.family.encodes else self._continuous(read, rows)

    def _encoded(self, groups: Iterator[Group]) -> Iterator[tuple[Request, Candidates | str]]:
        """By transformers' `generate`, group by group."""
        for group in groups:
            yield from _damage(group)
            if group.inputs is None:
                continue
            inputs = self._moved(group)
            candidates: list[Candidates] = [[] for _ in group.requests]
            filled = next(iter(inputs.values())).shape[0] - len(group.requests)
            for draw in range(self.settings.candidates):
                seeds = [self._seed(request, draw) for request in group.requests] + [0] * filled
                tokens = self.family.generate(inputs, torch.tensor(seeds, device=self.family.device))
                for own, written in zip(candidates, tokens, strict=False):
                    own.append(self.family.caption(written))
            yield from zip(group.requests, candidates, strict=True)

    def _continuous(self, groups: Iterator[Group], rows: int) -> Iterator[tuple[Request, Candidates | str]]:
        """In rows that take the next image when a caption ends; each image has a row for every candidate."""
        rows *= self.settings.candidates
        slots: Slots | None = None
        written: dict[Request, dict[int, str]] = {}

        def collected(ended: Iterator[tuple[Any, list[int]]]) -> Iterator[tuple[Request, Candidates]]:
            for (request, draw), tokens in ended:
                mine = written.setdefault(request, {})
                mine[draw] = self.family.caption(tokens)
                if len(mine) == self.settings.candidates:
                    yield request, [caption for _, caption in sorted(written.pop(request).items())]

        for group in groups:
            yield from _damage(group)
            if group.inputs is None:
                continue
            draws = [
                Draw((request, draw), image, self._seed(request, draw))
                for image, request in enumerate(group.requests)
                for draw in range(self.settings.candidates)
            ]
            while slots is not None and slots.busy and slots.free < len(draws):
                yield from collected(slots.step())
            prompts = self.family.read(self._moved(group))
            places = places_for(prompts.mask.shape[1], self.settings.max_new_tokens)
            if slots is None or slots.places < places:
                while slots is not None and slots.busy:
                    yield from collected(slots.step())
                slots = None  # and its memory is free
                slots = Slots(
                    self.family.step,
                    self.family.sampler,
                    rows=rows,
                    places=places,
                    max_new_tokens=self.settings.max_new_tokens,
                    ends=self.family.ends,
                    like=prompts,
                )
            yield from collected(slots.admit(prompts, draws))
        while slots is not None and slots.busy:
            yield from collected(slots.step())

    def _moved(self, group: Group) -> dict[str, torch.Tensor]:
        assert group.inputs is not None
        return {name: tensor.to(self.family.device, non_blocking=True) for name, tensor in group.inputs.items()}

    def _seed(self, request: Request, draw: int) -> int:
        return record_seed(self.seed, request.key, draw)


class _Pending:
    """Records whose images are being captioned."""

    def __init__(self, records: int) -> None:
        self._answers: list[dict[int, Candidates | str]] = [{} for _ in range(records)]
        self._images = [0] * records
        self.complete: dict[int, Answer] = {}
        """Answers by their records' places, until they are taken."""

    def ask(self, place: int, record: Record, roots: ImageRoots) -> list[Request]:
        """Requests for the record's images. Raises ImageProblem for a path that cannot be followed."""
        if not record.images:
            self.fail(place, str(Reason.NO_IMAGES))
        self._images[place] = len(record.images)
        return [
            Request(image_key(record, number), place, number, roots.path(record.image_root, image))
            for number, image in enumerate(record.images)
        ]

    def fail(self, place: int, reason: str) -> None:
        """The record has no captions."""
        self.complete[place] = reason

    def answer(self, request: Request, answer: Candidates | str) -> None:
        """One image of a record is done."""
        answers = self._answers[request.place]
        answers[request.number] = answer
        if len(answers) == self._images[request.place]:
            ordered = [answers[number] for number in sorted(answers)]
            reasons = [given for given in ordered if isinstance(given, str)]
            self.complete[request.place] = reasons[0] if reasons else ordered  # type: ignore[assignment]

    def take(self) -> dict[int, Answer]:
        """Records that have become complete since the last call."""
        complete, self.complete = self.complete, {}
        return complete


def _damage(group: Group) -> Iterator[tuple[Request, str]]:
    return ((request, str(reason)) for request, reason in group.damaged)

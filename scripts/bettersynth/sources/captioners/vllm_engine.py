"""Captions by vLLM's offline engine (`vllm.LLM`), for GPU nodes whose environment has it.

vLLM schedules, batches and draws the words itself; what it is asked, and each draw's seed, come from here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib import metadata
from typing import Any

from PIL.Image import Image

from bettersynth.configuration.pool import Reading
from bettersynth.core.parallel import batches
from bettersynth.core.seeding import record_seed
from bettersynth.pool.images import ImageReason
from bettersynth.runtime.devices import DTYPES
from bettersynth.sources.base import GeneratorError
from bettersynth.sources.captioners.families import Family
from bettersynth.sources.captioners.reading import ORDINARY, Request, open_request, refused

MOST_PIXELS = 64_000_000
"""Of a batch's images together, 256 MB: one with larger images has fewer of them."""
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # or which requests meet in a batch would be chance
    "VLLM_NO_USAGE_STATS": "1",  # they go over the network
    "VLLM_HOST_IP": "127.0.0.1",  # which it would ask the network for
}


def vllm_version() -> str:
    """The version of vLLM in this environment. Raises GeneratorError where there is none."""
    try:
        return metadata.version("vllm")
    except metadata.PackageNotFoundError:
        raise GeneratorError(
            "engine: vllm, but vllm is not installed here; it brings its own torch, so make an environment of its own "
            "for GPU nodes, with vllm in place of envs/torch-cuda.txt (docs/captions.md, vLLM), or set engine: "
            "transformers"
        ) from None


class VllmWriter:
    """Lets vLLM write for `batch` images at a time."""

    def __init__(self, family: Family, seed: int, reading: Reading) -> None:
        """Raises GeneratorError for a model that vLLM does not serve."""
        if not family.in_vllm:
            raise GeneratorError(
                f"{family.folder}: vLLM does not serve this model (Florence-2, or BLIP-2 with Flan-T5); "
                "set engine: transformers"
            )
        self.family = family
        self.settings = family.settings
        self.seed = seed
        self.reading = reading

    @cached_property
    def _engine(self) -> Any:
        os.environ.update(ENVIRONMENT)
        import vllm

        return vllm.LLM(
            model=str(self.family.folder),
            dtype=str(DTYPES[self.settings.precision]).removeprefix("torch."),
            seed=0,
            limit_mm_per_prompt={"image": 1},
            load_format="safetensors",
        )

    def write(self, requests: Sequence[Request]) -> Iterator[tuple[Request, list[str] | str]]:
        """Each image's candidates, or the reason why it has none, batch by batch."""
        for asked in batches(requests, self.settings.batch):
            some: dict[Request, Image] = {}
            for request in asked:
                image = open_request(request, self.reading)
                if isinstance(image, ImageReason):
                    yield request, str(image)
                    continue
                some[request] = image
                if sum(math.prod(image.size) for image in some.values()) > MOST_PIXELS:
                    yield from self._written(some)
                    some = {}
            if some:
                yield from self._written(some)

    def _written(self, some: dict[Request, Image]) -> Iterator[tuple[Request, list[str] | str]]:
        """The candidates of a batch; one by one when it raises, to find the image that vLLM's processing refuses."""
        try:
            yield from self._generated(some).items()
        except Exception as error:  # a processor has no list of what it raises
            if len(some) == 1:
                (request,) = some
                self._generated({request: ORDINARY})
                yield request, str(refused(request, error))
                return
            for request, image in some.items():
                yield from self._written({request: image})

    def _generated(self, some: dict[Request, Image]) -> dict[Request, list[str]]:
        draws = range(self.settings.candidates)
        prompt = self.family.prompt() or ""
        prompts = [{"prompt": prompt, "multi_modal_data": {"image": image}} for image in some.values() for _ in draws]
        sampling = [self._sampling(request, draw) for request in some for draw in draws]
        outputs = iter(self._engine.generate(prompts, sampling, use_tqdm=False))
        return {request: [self._caption(next(outputs)) for _ in draws] for request in some}

    def _sampling(self, request: Request, draw: int) -> Any:
        """vLLM's settings of one draw; its seeds have 64 bits and ours 63."""
        from vllm import SamplingParams

        defaults = self.family.generation_config
        return SamplingParams(
            n=1,
            temperature=self.settings.temperature if self.settings.sampling else 0.0,
            top_p=1.0 if defaults.top_p is None else defaults.top_p,
            top_k=defaults.top_k or -1,
            repetition_penalty=defaults.repetition_penalty or 1.0,
            seed=record_seed(self.seed, request.key, draw),
            max_tokens=self.settings.max_new_tokens,
            stop_token_ids=self.family.ends,
            detokenize=False,
        )

    def _caption(self, output: Any) -> str:
        """As from transformers: without the token that ends it, and decoded by the folder's tokenizer."""
        return self.family.caption([token for token in output.outputs[0].token_ids if token not in self.family.ends])

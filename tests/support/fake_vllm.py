"""A stand-in for vLLM, which needs CUDA: what is used of its offline interface, deterministic, and recording."""

import hashlib
from types import SimpleNamespace
from typing import ClassVar


class SamplingParams:
    """vLLM's, with the parameters that it has of that name; another one is a TypeError."""

    def __init__(
        self,
        *,
        n=1,
        repetition_penalty=1.0,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        seed=None,
        max_tokens=16,
        stop_token_ids=None,
        detokenize=True,
    ):
        assert temperature >= 0 and 0 < top_p <= 1 and (top_k == -1 or top_k >= 0) and 0 <= seed < 2**63
        self.__dict__.update({name: value for name, value in locals().items() if name != "self"})


class LLM:
    """Answers with tokens made of the prompt, the image and, unless it is greedy, the seed; then an end token."""

    opened: ClassVar[list["LLM"]] = []

    def __init__(self, *, model, dtype, seed, limit_mm_per_prompt, load_format):
        self.options = {name: value for name, value in locals().items() if name != "self"}
        self.calls = []
        LLM.opened.append(self)

    def generate(self, prompts, sampling_params, *, use_tqdm=True):
        """One output for each prompt, in their order."""
        self.calls.append(list(zip(prompts, sampling_params, strict=True)))
        return [self._answer(prompt, sampling) for prompt, sampling in self.calls[-1]]

    def _answer(self, prompt, sampling):
        image = prompt["multi_modal_data"]["image"]
        drawn = sampling.seed if sampling.temperature else None
        digest = hashlib.sha256(repr((prompt["prompt"], image.size, drawn)).encode() + image.tobytes()).digest()
        tokens = [50 + byte % 40 for byte in digest[: sampling.max_tokens - 1]]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=[*tokens, sampling.stop_token_ids[0]])])

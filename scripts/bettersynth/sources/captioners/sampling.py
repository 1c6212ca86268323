"""The next word of every caption: the likeliest, or a draw whose random numbers are the caption's own.

A draw's random number is a hash of the caption's seed, the word's place in the caption and the token. So it does not
depend on the batch, the row or the device, and no generator's state has to be kept to go on after a kill.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from bettersynth.configuration.generators import Captioner

_GOLDEN, _FIRST, _SECOND = (
    constant - (1 << 64) for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
"""SplitMix64's constants (Steele, Lea and Flood, 2014) as signed numbers: torch's int64 wraps as uint64 does."""


def gumbel(seeds: torch.Tensor, steps: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Gumbel noise, (rows, vocabulary), float32; row r is a function of `seeds[r]` and `steps[r]` (both int64) alone.

    The argmax of logits + Gumbel noise is a draw from their softmax (the Gumbel-max trick).
    """
    tokens = torch.arange(1, vocabulary + 1, device=seeds.device)
    states = _mixed(seeds + _GOLDEN * (steps + 1))
    bits = _mixed(states[:, None] + _GOLDEN * tokens)
    uniform = (_shifted(bits, 11).double() + 0.5) * 2.0**-53
    return -(-uniform.log()).log().float()


def _mixed(state: torch.Tensor) -> torch.Tensor:
    """SplitMix64's output function."""
    state = (state ^ _shifted(state, 30)) * _FIRST
    state = (state ^ _shifted(state, 27)) * _SECOND
    return state ^ _shifted(state, 31)


def _shifted(state: torch.Tensor, by: int) -> torch.Tensor:
    """Shifted right with zeros coming in, which torch's own shift of a negative number does not do."""
    return (state >> by) & ((1 << (64 - by)) - 1)


class Sampler:
    """How a captioner chooses words: greedily, or by its temperature and the model's own top-k and top-p.

    The model's own repetition penalty counts for both.
    """

    def __init__(self, settings: Captioner, defaults: GenerationConfig) -> None:
        self.sampling = settings.sampling
        self.penalty: float = defaults.repetition_penalty or 1.0
        self.warpers = LogitsProcessorList()
        if settings.sampling:
            self.warpers.append(TemperatureLogitsWarper(settings.temperature))
            if defaults.top_k:
                self.warpers.append(TopKLogitsWarper(defaults.top_k))
            if defaults.top_p is not None and defaults.top_p < 1:
                self.warpers.append(TopPLogitsWarper(defaults.top_p))

    def penalised(self, logits: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        """Logits less likely where `seen`, (rows, vocabulary), says that a row has the token already.

        As transformers' `RepetitionPenaltyLogitsProcessor`, whose rows, of token ids, would grow with every word.
        """
        if seen is None:
            return logits
        return torch.where(seen, torch.where(logits < 0, logits * self.penalty, logits / self.penalty), logits)

    def noisy(self, logits: torch.Tensor, seeds: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        """Scores, (rows, vocabulary), whose argmax is the next token; `seeds` and `steps` are (rows,)."""
        if not self.sampling:
            return logits
        scores = self.warpers(None, logits)  # type: ignore[arg-type]
        return scores + gumbel(seeds, steps, logits.shape[-1])


class OwnNoise(LogitsProcessor):
    """A sampler for transformers' greedy `generate`: one object for one call."""

    def __init__(self, sampler: Sampler, seeds: torch.Tensor) -> None:
        self.sampler = sampler
        self.seeds = seeds
        self.steps = torch.zeros_like(seeds)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> Any:
        """Noisy scores; both are (rows, vocabulary)."""
        noisy = self.sampler.noisy(scores, self.seeds, self.steps)
        self.steps += 1
        return noisy

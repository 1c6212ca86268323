"""Many captions written at one time, each in a row of its own (continuous batching).

A row holds its caption's keys and values in a cache of fixed size, from place 0 on, whatever the other rows do. A row
whose caption has ended takes the next image at once. On a GPU a step is one CUDA graph: at a caption's length the time
goes into launching kernels, not into running them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from bettersynth.sources.captioners.sampling import Sampler

ALIGNED = 64
"""The cache's length is a multiple of this, so that prompts of nearly one length find one size."""


class Prompts(NamedTuple):
    """What the language model made of a group of prompts, each `tokens` long with its padding at the left."""

    logits: torch.Tensor
    """Of the first word, (images, vocabulary)."""
    cache: Any
    """transformers' cache, of keys and values (images, heads, tokens, size of a head)."""
    mask: torch.Tensor
    """Which tokens are no padding, (images, tokens)."""
    positions: torch.Tensor
    """Position of the first word, (images,)."""
    ids: torch.Tensor
    """The prompts' token ids, (images, tokens)."""

    def seen(self, images: torch.Tensor) -> torch.Tensor:
        """Which tokens stand in the images' prompts, (images, vocabulary)."""
        ids = torch.where(self.mask.bool(), self.ids, self.ids[:, -1:])[images]  # the last one is no padding
        seen = torch.zeros(len(images), self.logits.shape[1], dtype=torch.bool, device=ids.device)
        return seen.scatter_(1, ids, True)


class Draw(NamedTuple):
    """One caption to be written: for which image of its group, and with which random numbers."""

    owner: Hashable
    image: int
    seed: int


Step = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Cache], torch.Tensor]
"""From tokens and positions (rows, 1), a mask (rows, 1, 1, places) to add, and a cache to logits (rows, vocabulary)."""


class Slots:
    """Rows in which captions are written."""

    def __init__(
        self,
        step: Step,
        sampler: Sampler,
        *,
        rows: int,
        places: int,
        max_new_tokens: int,
        ends: Sequence[int],
        like: Prompts,
    ) -> None:
        """`places` are a row's tokens, prompt and caption; `like` gives the sizes, the precision and the device."""
        self._step = step
        self._sampler = sampler
        self._max_new_tokens = max_new_tokens
        self._ends = frozenset(ends)
        self.places = places
        self._layers = [_Layer(keys, rows, places) for keys, _ in like.cache]
        device, dtype = self._layers[0].keys.device, self._layers[0].keys.dtype
        self._shut = torch.finfo(dtype).min
        self._mask = torch.full((rows, 1, 1, places), self._shut, dtype=dtype, device=device)
        self._tokens, self._positions, self._place, self._seeds, self._steps, self._busy = (
            torch.zeros(rows, dtype=torch.int64, device=device) for _ in range(6)
        )
        self._seen: torch.Tensor | None = None
        """Tokens of each row's prompt and caption, where they are penalised."""
        if sampler.penalty != 1:
            self._seen = torch.zeros(rows, like.logits.shape[1], dtype=torch.bool, device=device)
        self._cache = _SlotCache(self._layers, self._place)
        self._free = list(range(rows))
        self._written: dict[int, tuple[Hashable, list[int]]] = {}
        self._graph = self._captured() if device.type == "cuda" else None

    @property
    def free(self) -> int:
        """Rows without a caption."""
        return len(self._free)

    @property
    def busy(self) -> bool:
        """Whether any caption is being written."""
        return bool(self._written)

    def admit(self, prompts: Prompts, draws: Sequence[Draw]) -> Iterator[tuple[Hashable, list[int]]]:
        """Give every draw a row and write its first word. Captions that are ended by that come back as from `step`."""
        device = self._place.device
        rows = [self._free.pop() for _ in draws]
        where = torch.tensor(rows, device=device)
        images = torch.tensor([draw.image for draw in draws], device=device)
        tokens = prompts.mask.shape[1]
        for layer, (keys, values) in zip(self._layers, prompts.cache, strict=True):
            layer.keys[where, :, :tokens] = keys[images]
            layer.values[where, :, :tokens] = values[images]
        mask = torch.full_like(self._mask[where], self._shut)
        mask[..., :tokens].masked_fill_(prompts.mask[images][:, None, None, :].bool(), 0)
        self._mask[where] = mask
        seeds = torch.tensor([draw.seed for draw in draws], device=device)
        logits, seen = prompts.logits[images].float(), None
        if self._seen is not None:
            seen = self._seen[where] = prompts.seen(images)
        logits = self._sampler.penalised(logits, seen)
        first = self._sampler.noisy(logits, seeds, torch.zeros_like(seeds)).argmax(-1)
        self._tokens[where], self._seeds[where] = first, seeds
        self._positions[where], self._place[where] = prompts.positions[images], tokens
        self._steps[where] = self._busy[where] = 1
        self._written.update({row: (draw.owner, []) for row, draw in zip(rows, draws, strict=True)})
        yield from self._collected(rows, first.tolist())

    def step(self) -> Iterator[tuple[Hashable, list[int]]]:
        """Write one more word of every caption; the owners and token ids of those that end with it."""
        if self._graph is None:
            self._advance()
        else:
            self._graph.replay()
        chosen = self._tokens.tolist()
        rows = sorted(self._written)
        yield from self._collected(rows, [chosen[row] for row in rows])

    def _advance(self) -> None:
        """One step of all rows, in tensors that stay where they are; free rows compute what nobody reads."""
        self._mask.scatter_(3, self._place[:, None, None, None], 0.0)
        logits = self._step(self._tokens[:, None], self._positions[:, None], self._mask, self._cache)
        if self._seen is not None:
            self._seen.scatter_(1, self._tokens[:, None], True)
        logits = self._sampler.penalised(logits.float(), self._seen)
        self._tokens.copy_(self._sampler.noisy(logits, self._seeds, self._steps).argmax(-1))
        for counter in (self._positions, self._place, self._steps):
            counter += self._busy

    def _captured(self) -> Any:
        """The step as CUDA graph. All rows are still free: warming up changes nothing that counts."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self._advance()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._advance()
        return graph

    def _collected(self, rows: Sequence[int], tokens: Sequence[int]) -> Iterator[tuple[Hashable, list[int]]]:
        ended = []
        for row, token in zip(rows, tokens, strict=True):
            owner, written = self._written[row]
            if token not in self._ends:
                written.append(token)
            if token in self._ends or len(written) == self._max_new_tokens:
                ended.append(row)
                yield owner, written
        for row in ended:
            del self._written[row]
        if ended:
            self._free += ended
            self._busy[torch.tensor(ended, device=self._busy.device)] = 0


def places_for(prompt_tokens: int, max_new_tokens: int) -> int:
    """Places of a row that has room for a prompt and a caption."""
    return -(-(prompt_tokens + max_new_tokens) // ALIGNED) * ALIGNED


class _Layer(CacheLayerMixin):
    """Keys and values of one layer, (rows, heads, places, size of a head); `place` says where a row's next one goes."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, like: torch.Tensor, rows: int, places: int) -> None:
        super().__init__()
        shape = (rows, like.shape[1], places, like.shape[3])
        self.keys, self.values = (torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in range(2))
        self.rows = torch.arange(rows, device=like.device)
        self.place = self.rows
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, cache_kwargs: dict[str, Any] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put one token's states, (rows, heads, 1, size of a head), into each row; returns all."""
        self.keys[self.rows, :, self.place] = key_states[:, :, 0]
        self.values[self.rows, :, self.place] = value_states[:, :, 0]
        return self.keys, self.values

    def lazy_initialization(self, key_states: torch.Tensor) -> None:
        """Nothing: the sizes are known from the start."""

    def get_mask_sizes(self, cache_position: torch.Tensor) -> tuple[int, int]:
        """All places count; the mask says which are open."""
        return self.get_max_cache_shape(), 0

    def get_seq_length(self) -> int:
        """Rows have different lengths; positions are given with every step."""
        return 0

    def get_max_cache_shape(self) -> int:
        """Places of a row."""
        return self.keys.shape[2]


class _SlotCache(Cache):
    def __init__(self, layers: list[_Layer], place: torch.Tensor) -> None:
        for layer in layers:
            layer.place = place
        super().__init__(layers=list(layers))

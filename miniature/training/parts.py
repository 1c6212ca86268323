"""Parts that several models are taught with: heads that name patches, and tables of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from miniature.material import PATCH_LABELS
from miniature.training.lesson import Lesson


class PatchReader(nn.Module):
    """Linear heads that name what stands in each patch: teachers of a vision tower, then thrown away."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, len(values) + 1) for values in PATCH_LABELS.values())
        # Weight of "nothing of the kind": rarer kinds have more of it.
        self.nothing = [0.02 if kind in ("action", "word") else 0.1 for kind in PATCH_LABELS]

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean loss over the kinds; features (b, patches, width), labels (b, kinds, patches)."""
        features = self.norm(features)
        losses = []
        for number, head in enumerate(self.heads):
            logits = head(features).flatten(0, 1).float()
            weights = torch.ones(logits.shape[1], device=logits.device)
            weights[0] = self.nothing[number]
            losses.append(functional.cross_entropy(logits, labels[:, number].flatten().long(), weights))
        return torch.stack(losses).mean()


@dataclass(frozen=True)
class TokenTable:
    """Token ids of one text per scene (n, length), and how many of them count (n,)."""

    ids: Tensor
    lengths: Tensor

    def rows(self, chosen: Tensor, pad: int) -> tuple[Tensor, Tensor]:
        """Ids, padded on the right, and attention mask of the chosen scenes, no longer than needed."""
        lengths = self.lengths[chosen]
        longest = int(lengths.max())
        mask = torch.arange(longest, device=lengths.device) < lengths.unsqueeze(1)
        return self.ids[chosen, :longest].long().masked_fill(~mask, pad), mask.long()


def token_table(
    lesson: Lesson,
    tokenizer: Any,
    texts: list[str],
    *,
    start: int | None = None,
    end: int | None = None,
    limit: int = 200,
) -> TokenTable:
    """Encode a text for each scene, at most `limit` tokens of it, between the ids `start` and `end`."""
    head, tail = ([] if token is None else [token] for token in (start, end))
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    rows = [[*head, *encoding.ids[:limit], *tail] for encoding in encodings]
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), lengths.max()), np.int32)
    ids[np.arange(lengths.max()) < lengths[:, None]] = np.concatenate(rows)
    return TokenTable(*(torch.from_numpy(array).to(lesson.device) for array in (ids, lengths)))


def clip_table(lesson: Lesson, tokenizer: Any, texts: list[str]) -> TokenTable:
    return token_table(lesson, tokenizer, texts, start=tokenizer.bos_token_id, end=tokenizer.eos_token_id, limit=75)


def stack_right(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], pad: int) -> tuple[Tensor, Tensor]:
    """Two batches of ids and masks under each other."""
    length = max(first[0].shape[1], second[0].shape[1])
    ids = [functional.pad(ids, (0, length - ids.shape[1]), value=pad) for ids, _ in (first, second)]
    masks = [functional.pad(mask, (0, length - mask.shape[1])) for _, mask in (first, second)]
    return torch.cat(ids), torch.cat(masks)


def language_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Next-token loss where labels are not -100; logits (b, length, vocabulary)."""
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)

"""Captions as vectors: the mean or first token of a sentence encoder, or a CLIP's text features.

A vector is kept as bytes, scaled so that its largest number is 127: its direction, all that `cluster` looks at, is
kept to less than a degree or two, in a quarter of the room.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from bettersynth.core.publish import read_json
from bettersynth.core.records import caption_of
from bettersynth.core.vectors import as_bytes
from bettersynth.operators.model_folder import check_model_folder, model_architecture
from bettersynth.runtime.patches.transformers import refuse_code
from bettersynth.runtime.patches.weights import open_model

POOLING = Path("1_Pooling") / "config.json"
"""Where sentence-transformers folders say which tokens make the sentence's vector."""
UNUSED = (r"pooler\.",)
"""Weights of an encoder that no vector is made of; many encoders are published without."""
HEADS = (r"cls\.", r"lm_head\.", r"vocab_\w+\.", r"classifier\.")
"""Those of the task that an encoder was trained by."""


class TextEmbedding:
    """Our operator `text_embedding`, its encoder opened from a local folder. Captions are short: a CPU is enough."""

    def __init__(self, folder: Path) -> None:
        self.is_clip = model_architecture(check_model_folder(folder)) == "CLIPModel"
        self.takes_first = not self.is_clip and _takes_first(folder)
        refuse_code()
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model = open_model(AutoModel, folder, may_lack=UNUSED, spare=HEADS, dtype=torch.float32).eval()

    def stats(self, texts: list[str], images: list[list[str]], decoded: list[dict[str, Image]]) -> list[dict[str, Any]]:
        """Stats of each record from its text."""
        vectors = as_bytes(self.encode([caption_of(text) for text in texts]).numpy())
        return [{"text_embedding": vector} for vector in vectors]

    @torch.inference_mode()
    def encode(self, captions: list[str]) -> Tensor:
        """Vectors (captions, dimensions); a caption is cut where the encoder's positions end."""
        length = (self.model.config.text_config if self.is_clip else self.model.config).max_position_embeddings
        inputs = self.tokenizer(captions, padding=True, truncation=True, max_length=length, return_tensors="pt")
        if self.is_clip:
            return self.model.get_text_features(inputs["input_ids"], inputs["attention_mask"])
        tokens = self.model(**inputs).last_hidden_state
        if self.takes_first:
            return tokens[:, 0]
        mask = inputs["attention_mask"][..., None]
        return (tokens * mask).sum(1) / mask.sum(1)


def _takes_first(folder: Path) -> bool:
    path = folder / POOLING
    return path.is_file() and read_json(path).get("pooling_mode_cls_token", False)

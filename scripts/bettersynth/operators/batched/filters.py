"""Data-Juicer's filters with their stats computed in batches.

Each class adds the steps that a pass over many records runs in worker processes (`plan`) and on the device (`forward`,
`values`, `reduce`), and overrides nothing of Data-Juicer's; `stand_in` runs them in Data-Juicer's own executors.

A job imports this module after `runtime.patches.prepare` and `import_data_juicer`: it imports Data-Juicer, and changes
nothing of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from data_juicer.ops.filter import phrase_grounding_recall_filter as grounding
from data_juicer.ops.filter.image_aesthetics_filter import ImageAestheticsFilter
from data_juicer.ops.filter.image_nsfw_filter import ImageNSFWFilter
from data_juicer.ops.filter.image_text_matching_filter import ImageTextMatchingFilter
from data_juicer.ops.filter.image_text_similarity_filter import ImageTextSimilarityFilter
from data_juicer.ops.filter.image_watermark_filter import ImageWatermarkFilter
from data_juicer.ops.filter.text_action_filter import TextActionFilter
from data_juicer.utils import model_utils
from data_juicer.utils.constant import Fields, StatsKeys
from data_juicer.utils.mm_utils import SpecialTokens, iou, remove_special_tokens

from bettersynth.operators.batched import precision
from bettersynth.operators.batched.pixels import Geometry, Normalisation, split
from bettersynth.operators.batched.types import Part, Tokens
from bettersynth.runtime.devices import attention_of_many_shapes
from bettersynth.runtime.patches.transformers_kernels import speed_up


class BatchedFilter:
    """What the image filters have in common; mixed in before one of Data-Juicer's classes."""

    stat: ClassVar[str]
    largest_batch: ClassVar[int] = 256
    """Images in one forward pass at most; more would not be faster on a large GPU."""
    _batched_op = True

    # Of Data-Juicer's classes:
    model_key: Any
    text_key: str
    image_key: str
    use_cuda: Callable[[], bool]
    reduce_mode: str
    horizontal_flip: bool = False
    vertical_flip: bool = False

    @classmethod
    def of(cls, stock: Any) -> BatchedFilter:
        """The batched form of one of Data-Juicer's filters, with its parameters; not loaded yet."""
        made = cls.__new__(cls)
        made.__dict__.update(stock.__dict__)
        return made

    def load(self, numbers: str, rank: int | None) -> None:
        """Take the model from Data-Juicer's table, loading it when needed, and make it ready for batches.

        `numbers` is `auto`, `fp32`, `bf16` or `fp16`; `rank` is Data-Juicer's, of a worker among several.
        """
        self.model, self.processor = model_utils.get_model(self.model_key, rank, self.use_cuda())
        images = getattr(self.processor, "image_processor", self.processor)
        self.geometry: Geometry
        self.normalisation: Normalisation
        self.geometry, self.normalisation = split(images, self.horizontal_flip, self.vertical_flip)
        self.device: torch.device = self.model.device
        self.dtype = precision.chosen(numbers, self.device)
        self.model.eval()
        speed_up(self.model, self.dtype)
        precision.cast(self.model, self.dtype, self.heads())

    def heads(self) -> list[torch.nn.Module]:
        """The modules that stay in fp32."""
        raise NotImplementedError

    def plan(self, texts: list[str], images: list[list[str]]) -> list[list[Part]]:
        """For each record, the parts of its stat; `images` are each record's paths. Needs no device."""
        raise NotImplementedError

    def forward(self, pixels: torch.Tensor, texts: list[Any]) -> torch.Tensor:
        """Raw outputs in fp32, a row for each of the images `[n, 3, height, width]` and its `Part.text`."""
        raise NotImplementedError

    def values(self, raw: npt.NDArray[np.float32], texts: list[Any], sizes: list[tuple[int, int]]) -> list[float]:
        """The score of each image from its row of `raw`; `sizes` are the images' widths and heights."""
        return [float(value) for value in raw]

    def reduce(self, values: list[float]) -> float:
        """The part's value, by the operator's `reduce_mode`."""
        if self.reduce_mode == "avg":
            return fmean(values) if len(values) > 1 else values[0]  # nearly always: a hundred times as fast
        return max(values) if self.reduce_mode == "max" else min(values)


class DistinctImages(BatchedFilter):
    """Plan of the filters that look at images only: one value for each distinct path, as Data-Juicer's loader does."""

    def plan(self, texts: list[str], images: list[list[str]]) -> list[list[Part]]:
        return [[Part([path]) for path in dict.fromkeys(paths)] for paths in images]

    def reduce(self, values: list[float]) -> float:
        return values[0]


class Chunks(BatchedFilter):
    """Plan of the filters that compare image and text: one value for each chunk that has an image."""

    def plan(self, texts: list[str], images: list[list[str]]) -> list[list[Part]]:
        chunks = [
            [chunk for chunk in text.split(SpecialTokens.eoc) if SpecialTokens.image in chunk] if paths else []
            for text, paths in zip(texts, images, strict=True)
        ]
        encoded = iter(self.encode([remove_special_tokens(chunk) for chunk in itertools.chain(*chunks)]))
        return [list(self._parts(*record, encoded)) for record in zip(chunks, images, strict=True)]

    def _parts(self, chunks: list[str], paths: list[str], encoded: Iterator[Any]) -> Iterator[Part]:
        used = 0
        for chunk, text in zip(chunks, encoded, strict=False):
            if text is None:
                yield Part([], None, 1.0)  # upstream goes on without counting the chunk's images as used
                continue
            count = chunk.count(SpecialTokens.image)
            if not paths[used : used + count]:
                raise ValueError(f"no image is left for the image token of {chunk.strip()!r}")
            yield Part(paths[used : used + count], text)
            used += count

    def encode(self, texts: list[str]) -> list[Any]:
        """Each chunk's text as `forward` takes it; None where there is nothing to look for."""
        return self._tokenise(texts, truncation=True, max_length=self.model.config.text_config.max_position_embeddings)

    def _tokenise(self, texts: list[str], **options: Any) -> list[Tokens]:
        if not texts:
            return []
        return [tuple(tokens) for tokens in self.processor.tokenizer(texts, **options)["input_ids"]]

    def _padded(self, texts: list[Tokens]) -> tuple[torch.Tensor, torch.Tensor]:
        """`(tokens, mask)`, both `[n, longest]`, on the device.

        Made by NumPy: PyTorch would spread it over all cores, which decode images.
        """
        lengths = np.array([len(text) for text in texts])
        mask = np.arange(lengths.max()) < lengths[:, None]
        tokens = np.full(mask.shape, self.processor.tokenizer.pad_token_id)
        tokens[mask] = np.fromiter(itertools.chain(*texts), np.int64, lengths.sum())
        return tuple(self._to_device(torch.from_numpy(made)) for made in (tokens, mask.astype(np.int64)))  # type: ignore[return-value]

    def _to_device(self, made: torch.Tensor) -> torch.Tensor:
        """The tensor on the device, without waiting for what the device is at."""
        return made.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else made

    def _text_groups(self, texts: list[Tokens], groups: int = 2) -> Iterator[list[int]]:
        """Positions of texts of like length: little of a group is padding."""
        order = sorted(range(len(texts)), key=lambda position: len(texts[position]))
        size = -(-len(order) // groups) if len(order) >= 32 else len(order)
        return (order[start : start + size] for start in range(0, len(order), size))


class BatchedSimilarity(Chunks, ImageTextSimilarityFilter):
    """CLIP: features normalised one by one; no image meets another's text."""

    stat = StatsKeys.image_text_similarity
    largest_batch = 1024

    def heads(self) -> list[torch.nn.Module]:
        return [self.model.visual_projection, self.model.text_projection]

    def forward(self, pixels: torch.Tensor, texts: list[Tokens]) -> torch.Tensor:
        images = _unit(self.model.get_image_features(pixel_values=pixels).float())
        scores = torch.empty(len(texts), device=self.device)
        for group in self._text_groups(texts):
            tokens, mask = self._padded([texts[position] for position in group])
            with attention_of_many_shapes():
                features = _unit(self.model.get_text_features(input_ids=tokens, attention_mask=mask).float())
            rows = self._to_device(torch.tensor(group))
            scores[rows] = (images[rows] * features).sum(-1)
        return scores * (self.model.logit_scale.float().exp() / 100.0)


class BatchedMatching(Chunks, ImageTextMatchingFilter):
    """BLIP's matching head."""

    stat = StatsKeys.image_text_matching_score

    def heads(self) -> list[torch.nn.Module]:
        return [self.model.itm_head]

    def forward(self, pixels: torch.Tensor, texts: list[Tokens]) -> torch.Tensor:
        images = self.model.vision_model(pixel_values=pixels).last_hidden_state
        tokens, mask = self._padded(texts)
        joint = self.model.text_encoder(
            input_ids=tokens, attention_mask=mask, encoder_hidden_states=images
        ).last_hidden_state
        return self.model.itm_head(joint[:, 0]).float().softmax(-1)[:, 1]


class BatchedAesthetics(DistinctImages, ImageAestheticsFilter):
    """CLIP's picture encoder and the predictor on its unit features."""

    stat = StatsKeys.image_aesthetics_scores

    def heads(self) -> list[torch.nn.Module]:
        return [self.model.visual_projection, self._predictor()]

    def _predictor(self) -> torch.nn.Module:
        return self.model.layers if hasattr(self.model, "layers") else self.model.predictor

    def forward(self, pixels: torch.Tensor, texts: list[None]) -> torch.Tensor:
        pooled = self.model.vision_model(pixel_values=pixels).pooler_output
        scores = self._predictor()(_unit(self.model.visual_projection(pooled)))[:, 0]
        return scores / 10.0 if self.need_normalized_by_ten else scores


class _Classifier(DistinctImages):
    """A picture classifier's probability of class 1."""

    def heads(self) -> list[torch.nn.Module]:
        return [self.model.classifier]

    def forward(self, pixels: torch.Tensor, texts: list[None]) -> torch.Tensor:
        return self.model(pixel_values=pixels).logits.float().softmax(-1)[:, 1]


class BatchedWatermark(_Classifier, ImageWatermarkFilter):
    """The watermark detector."""

    stat = StatsKeys.image_watermark_prob
    largest_batch = 512


class BatchedNSFW(_Classifier, ImageNSFWFilter):
    """The detector of what is not safe for work."""

    stat = StatsKeys.image_nsfw_score
    largest_batch = 512


class BatchedGrounding(Chunks, grounding.PhraseGroundingRecallFilter):
    """OWL-ViT: which of the caption's noun phrases have a box of their own.

    A text is the noun phrases' tokens. Each distinct phrase of a batch is encoded once.
    """

    stat = StatsKeys.phrase_grounding_recall
    largest_batch = 128

    def load(self, numbers: str, rank: int | None) -> None:
        super().load(numbers, rank)
        self.model.box_bias = self.model.box_bias.to(self.device)
        self.tagger = model_utils.get_model(self.nltk_tagger_key)

    def heads(self) -> list[torch.nn.Module]:
        return [self.model.layer_norm, self.model.class_head, self.model.box_head, self.model.owlvit.text_projection]

    def encode(self, texts: list[str]) -> list[tuple[Tokens, ...] | None]:
        """The tokens of each text's noun phrases; None for a text without any."""
        phrases = self._noun_phrases(texts)
        tokens = iter(self._tokenise(list(itertools.chain(*phrases)), truncation=True))
        return [tuple(itertools.islice(tokens, len(found))) or None for found in phrases]

    def _noun_phrases(self, texts: list[str]) -> list[list[str]]:
        """Data-Juicer's `run_ner` of each text; all texts are tagged in one go where the tagger can."""
        if not hasattr(self.tagger, "many"):
            return [grounding.run_ner(text, self.tagger) for text in texts]
        words = [grounding.nltk.word_tokenize(text.lower()) for text in texts]
        tagged = self.tagger.many(words)
        return [grounding.run_ner(text, lambda _, tags=tags: tags) for text, tags in zip(texts, tagged, strict=True)]

    def forward(self, pixels: torch.Tensor, texts: list[tuple[Tokens, ...]]) -> torch.Tensor:
        """`[n, phrases, 6]`: score, phrase and corners (0…1) of each image's best boxes, as many as phrases."""
        boxes_of = self.model.image_embedder(pixel_values=pixels)[0].flatten(1, 2)
        queries, present = self._queries(texts)
        logits, _ = self.model.class_head(boxes_of, queries, present)
        best = logits.max(-1)
        scores, order = best.values.sigmoid().sort(dim=1, descending=True, stable=True)
        order = order[:, : queries.shape[1]]
        corners = self._corners(boxes_of.take_along_dim(order[..., None], 1), order)
        return torch.stack((scores[:, : queries.shape[1]], best.indices.gather(1, order).float(), *corners), -1)

    def _corners(self, features: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The corners of the boxes at some places of the grid: `box_predictor` of these alone."""
        x, y, width, height = (self.model.box_head(features) + self.model.box_bias[places]).sigmoid().unbind(-1)
        return x - 0.5 * width, y - 0.5 * height, x + 0.5 * width, y + 0.5 * height

    def _queries(self, texts: list[tuple[Tokens, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
        """`(unit features [n, phrases, width], which are there [n, phrases])`."""
        distinct = {phrase: number for number, phrase in enumerate(dict.fromkeys(itertools.chain(*texts)))}
        tokens, mask = self._padded(list(distinct))
        with attention_of_many_shapes():
            pooled = self.model.owlvit.text_model(input_ids=tokens, attention_mask=mask).pooler_output
        features = _unit(self.model.owlvit.text_projection(pooled))
        most = max(map(len, texts))
        index = torch.tensor([[distinct[phrase] for phrase in text] + [0] * (most - len(text)) for text in texts])
        present = torch.arange(most) < torch.tensor([len(text) for text in texts])[:, None]
        return features[self._to_device(index)], self._to_device(present)

    def values(
        self, raw: npt.NDArray[np.float32], texts: list[tuple[Tokens, ...]], sizes: list[tuple[int, int]]
    ) -> list[float]:
        return [self._recall(*image) for image in zip(raw, map(len, texts), sizes, strict=True)]

    def _recall(self, found: npt.NDArray[np.float32], phrases: int, size: tuple[int, int]) -> float:
        """Upstream's loop over the best boxes of one image: a phrase is hit once, by a box that is not too large."""
        width, height = size
        scale = np.array([width, height, width, height], np.float32)
        area, most = np.float32(width * height), np.float32(self.large_area_ratio_thr)
        hit: dict[int, list[float]] = {}
        for score, label, *corners in found[:phrases]:
            if not score > self.conf_thr or int(label) in hit:
                continue
            box = (np.array(corners) * scale).tolist()
            if np.float32((box[2] - box[0]) * (box[3] - box[1])) / area > most:
                continue
            if not any(iou(box, other) > self.iou_thr for other in hit.values()):
                hit[int(label)] = box
        return len(hit) / phrases


class BatchedTextAction(TextActionFilter):
    """Verbs of captions, tagged in batches; components that touch neither `pos_` nor `tag_` are left out."""

    _batched_op = True

    def compute_stats_batched(self, samples: dict[str, list[Any]], context: bool = False) -> dict[str, list[Any]]:
        """Data-Juicer's entry."""
        due = [stats for stats in samples[Fields.stats] if StatsKeys.num_action not in stats]
        texts = [
            remove_special_tokens(text)
            for text, stats in zip(samples[self.text_key], samples[Fields.stats], strict=True)
            if StatsKeys.num_action not in stats
        ]
        pipeline = model_utils.get_model(self.model_key)
        unread = [name for name in ("ner", "lemmatizer") if name in pipeline.pipe_names]
        with pipeline.select_pipes(disable=unread):
            for stats, document in zip(due, pipeline.pipe(texts), strict=True):
                stats[StatsKeys.num_action] = sum(
                    token.pos_ in self.action_poss and token.tag_ in self.action_tags for token in document
                )
        return samples


def _unit(features: torch.Tensor) -> torch.Tensor:
    return features / features.norm(dim=-1, keepdim=True)

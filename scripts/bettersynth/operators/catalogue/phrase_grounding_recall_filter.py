"""How many of a caption's noun phrases are found in the image.

Words are tagged with spaCy, because NLTK's tagger is a pickle; cards say so (`tagger`). Noun phrases are sorted;
Data-Juicer leaves them in the order of a set, which changes from run to run.
"""

from __future__ import annotations

from typing import Any

from bettersynth.configuration.cost import Cost
from bettersynth.configuration.operator import ANY, PAIR_PARAMETERS, OperatorSpec, Parameter
from bettersynth.core.resources import staged
from bettersynth.runtime.patches.data_juicer import sort_noun_phrases

Pairs = list[tuple[str, str]]


class Tagger:
    """A tagger in NLTK's form, `tokens -> [(token, Penn tag)]`, from spaCy."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def __call__(self, tokens: list[str]) -> Pairs:
        return self.many([tokens])[0]

    def many(self, texts: list[list[str]]) -> list[Pairs]:
        """The tags of many texts, in batches."""
        from spacy.tokens import Doc

        documents = self._pipeline.pipe(Doc(self._pipeline.vocab, words=tokens) for tokens in texts)
        return [[(token.text, token.tag_) for token in document] for document in documents]


def load_tagger(**parameters: Any) -> Tagger:
    """The tagger; a loader for Data-Juicer's table."""
    import spacy

    return Tagger(spacy.load(staged("spacy_en"), exclude=["parser", "senter", "ner", "lemmatizer"]))


def prepare(model_utils: Any) -> None:
    """Tag words with spaCy, and sort noun phrases."""
    model_utils.MODEL_FUNCTION_MAPPING["nltk_pos_tagger"] = load_tagger
    sort_noun_phrases()


SPEC = OperatorSpec(
    "phrase_grounding_recall_filter",
    "Share of the caption's noun phrases that OWL-ViT finds in the image; 1 for a caption without any.",
    stats={"phrase_grounding_recall": "numbers"},
    kind="bettersynth.operators.batched.filters:BatchedGrounding",
    decodes=True,
    model_argument="hf_owlvit",
    device="gpu",
    parameters={
        **PAIR_PARAMETERS,
        "iou_thr": Parameter(0.5, 0, 1),
        "large_area_ratio_thr": Parameter(0.95, 0, 1),
        "conf_thr": Parameter(0.0, 0, 1),
    },
    resources=("spacy_en", "punkt_en"),
    tagger="spacy_en",
    prepare=prepare,
    thresholds={"min_recall": 0.1, "max_recall": 1.0, **ANY},
    cost=Cost(800, 40, measured=("scoring", "grounding_pairs_per_s")),
)

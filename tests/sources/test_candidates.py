"""Which of several captions stays, and what becomes of a record's text: as Data-Juicer's mapper does it."""

import random

import pytest
import tiny_models

from bettersynth.core.records import (
    END_OF_CHUNK,
    IMAGE_TOKEN,
    text_of,
)
from bettersynth.sources.captioners.choice import captioned_text, keep_candidate, simhash_of


@pytest.fixture(scope="module")
def stock_mapper():
    """Data-Juicer's captioning mapper; its model is never opened."""
    from bettersynth.runtime.patches.data_juicer import import_data_juicer

    import_data_juicer()
    from data_juicer.ops.mapper.image_captioning_mapper import ImageCaptioningMapper

    def make(**options):
        return ImageCaptioningMapper(hf_img2seq="nowhere", keep_original_sample=False, **options)

    return make


def test_text_has_data_juicers_spaces(stock_mapper):
    text = text_of("a dog") + f"{IMAGE_TOKEN} a cat{END_OF_CHUNK}"
    sample = {"id": "1", "text": text, "images": ["a.png", "b.png"]}
    places = [(0, 0, 0), (0, 1, 0)]
    stock = stock_mapper()._distribute_captions([["one"], ["two"]], places, [sample])

    assert captioned_text(text, ["one", "two"]) == stock[0]["text"]


SIMHASHES = {
    "with": 0,
    "yellow red": 16908994528700696799,
    "man table car": 12807122312243840,
    "flower blue on the": 483265445171999147,
    "picture sitting tree green photo dog ball small yellow sky": 13066506222088309970,
    "A Ünïcode – caption of a dog": 2461252967815849107,
}
"""As simhash-pybind 0.0.3 says them, which Data-Juicer asks for."""


def test_simhashes_are_data_juicers():
    assert {text: simhash_of(text) for text in SIMHASHES} == SIMHASHES


def test_similar_one_is_data_juicers_choice(stock_mapper):
    pytest.importorskip("simhash", reason="comes without wheels: pip install simhash-pybind==0.0.3")
    mapper = stock_mapper(keep_candidate_mode="similar_one_simhash", caption_num=4)
    chance = random.Random(3)
    for _ in range(30):
        original, *candidates = (
            " ".join(chance.choices(tiny_models.WORDS, k=chance.randrange(1, 9))) for _ in range(5)
        )
        stock = mapper._reduce_captions_per_image(text_of(original), candidates)
        assert keep_candidate(candidates, original, "similar_one_simhash", 0, "x") == stock[0]
    assert simhash_of("one") == simhash_of("")


def test_random_any_is_drawn_by_record():
    chosen = {keep_candidate(["a", "b", "c"], "", "random_any", 0, f"id {number}") for number in range(20)}

    assert chosen == {"a", "b", "c"}

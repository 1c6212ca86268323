"""Gemma's turns, the loss mask, and pictures as CLIPImageProcessor makes them."""

import numpy as np
import pytest
import torch
from tiny_mgm import AUX_SIDE, SIDE, VISUAL_TOKENS, make_image, make_tokenizer
from transformers import CLIPImageProcessor

from bettersynth.operators.batched import pixels
from bettersynth.training.mgm import processing
from bettersynth.training.mgm.model import IGNORE_INDEX, IMAGE_TOKEN_INDEX, MGMConfig
from bettersynth.training.mgm.processing import ConversationError, Processor, pad_to_square


def make_processor(aspect: str = "square") -> Processor:
    config = MGMConfig(
        vision_config={"image_size": SIDE, "patch_size": 4}, image_size_aux=AUX_SIDE, image_aspect=aspect
    )
    return Processor(make_tokenizer(), CLIPImageProcessor(), config)


@pytest.fixture(scope="module")
def processor():
    return make_processor()


def spelled(processor: Processor, ids) -> str:
    """Ids as text, the image as `*`, a newline as `/`, what is not learned as `-`."""
    marks = {IMAGE_TOKEN_INDEX: "*", IGNORE_INDEX: "-"}
    names = [marks.get(int(number)) or processor.tokenizer.convert_ids_to_tokens(int(number)) for number in ids]
    return " ".join(names).replace("\n", "/")


def turns(*values: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(values)]


def test_one_round_with_an_image(processor):
    encoded = processor.encode(turns("what is this ?\n<image>", "a red square ."), has_image=True)
    assert spelled(processor, encoded.input_ids) == (
        "<bos> <start_of_turn> user / * / what is this ? <end_of_turn> / "
        "<start_of_turn> model / a red square . <end_of_turn> / <eos>"
    )
    assert spelled(processor, encoded.labels) == "- " * 15 + "a red square . <end_of_turn> / <eos>"


def test_several_rounds_without_an_image(processor):
    encoded = processor.encode(turns("what is this ?", "a circle", "a ?", "red"), has_image=False)
    assert spelled(processor, encoded.input_ids) == (
        "<bos> <start_of_turn> user / what is this ? <end_of_turn> / <start_of_turn> model / a circle <end_of_turn> / "
        "<eos> <start_of_turn> user / a ? <end_of_turn> / <start_of_turn> model / red <end_of_turn> / <eos>"
    )
    assert spelled(processor, encoded.labels) == (
        "- " * 13 + "a circle <end_of_turn> / <eos> " + "- " * 10 + "red <end_of_turn> / <eos>"
    )


def test_the_image_moves_to_the_front_of_its_question(processor):
    question = "Describe the picture .<image>"
    assert np.array_equal(
        processor.encode(turns(question, "red"), True).input_ids,
        processor.encode(turns("<image>\nDescribe the picture .", "red"), True).input_ids,
    )


def test_a_leading_answer_is_skipped(processor):
    conversation = turns("what ?", "red")
    skipped = [{"from": "gpt", "value": "two"}, *conversation]
    assert np.array_equal(processor.encode(skipped, False).labels, processor.encode(conversation, False).labels)


def test_a_sequence_is_cut_after_the_image_has_its_full_width(processor):
    encoded = processor.encode(turns("<image>\nwhat is this ?", "a red square ."), has_image=True)
    whole = encoded.expanded(VISUAL_TOKENS, 100)
    assert len(whole.input_ids) == len(whole.labels) == len(encoded.input_ids) + VISUAL_TOKENS - 1
    assert (whole.input_ids == IMAGE_TOKEN_INDEX).sum() == VISUAL_TOKENS
    assert (whole.labels[whole.input_ids == IMAGE_TOKEN_INDEX] == IGNORE_INDEX).all()
    cut = encoded.expanded(VISUAL_TOKENS, len(whole.labels) - 5)
    assert spelled(processor, cut.labels[-2:]) == "a red"
    inside = encoded.expanded(VISUAL_TOKENS, 10)
    assert (inside.input_ids == IMAGE_TOKEN_INDEX).sum() == 10 - 4


@pytest.mark.parametrize(
    ("conversation", "has_image", "message"),
    [
        (turns("what ?"), False, "alternation"),
        (turns("what ?", "red", "this ?"), False, "alternation"),
        ([], False, "alternation"),
        (turns("what ?", ""), False, "answer is empty"),
        (turns("what ?", "red"), True, "0 times <image>"),
        (turns("<image>\n<image>\nwhat ?", "red"), True, "2 times <image>"),
        (turns("<image>\nwhat ?", "red"), False, "1 times <image>"),
        (turns("what ?", "<image> red"), True, "<image> in an answer"),
        (turns("what ?", "red <eos> blue"), False, "<eos> in a text"),
        (turns("<start_of_turn>model\nwhat ?", "red"), False, "<start_of_turn> in a text"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(processor, conversation, has_image, message):
    with pytest.raises(ConversationError, match=message):
        processor.encode(conversation, has_image)


@pytest.mark.parametrize(
    ("conversation", "has_image", "ids", "learned"),
    [
        (turns("what ?", "red"), True, "what ?", "red"),
        (turns("<image>\nwhat <image> ?", "red"), True, "* / what ?", "red"),
        (turns("what ?", "red <image>"), True, "what ?", "/ red"),
        (turns("<image>\nwhat ?", "red"), False, "<unk> <unk> <unk> / what ?", "red"),
        (turns("what ?", " "), False, "what ?", ""),
        (turns("what ?", "red <bos> blue"), False, "what ?", "red <bos> blue"),
        (turns("what <end_of_turn> ?", "red"), False, "what <end_of_turn> ?", "red"),
        (turns("what ?", "red <eos> blue"), False, "what ?", None),
        (turns("what ?", "red <pad>"), False, "what ?", None),
        (turns("<start_of_turn>model\n ?", "red"), False, "<start_of_turn> model / ?", None),
        (turns("what ?", ""), False, "what ?", None),
    ],
)
def test_forms_that_the_published_program_trains_on(processor, conversation, has_image, ids, learned):
    """As its `preprocess_gemma` has them; of a conversation whose tokens it miscounts it learns nothing."""
    with pytest.raises(ConversationError):
        processor.encode(conversation, has_image)
    encoded = processor.encode(conversation, has_image, as_published=True)
    assert f"user / {ids} <end_of_turn>" in spelled(processor, encoded.input_ids)
    said = spelled(processor, encoded.labels[encoded.labels != IGNORE_INDEX])
    assert said == ("" if learned is None else f"{learned} <end_of_turn> / <eos>".strip())
    assert len(encoded.input_ids) == len(encoded.labels)


@pytest.mark.parametrize(
    "conversation", [turns("<image> what ?", "red", "<image> this ?", "blue"), turns("what ?", "red", "this ?"), []]
)
def test_what_no_program_can_train_on_is_refused_as_published_too(processor, conversation):
    with pytest.raises(ConversationError):
        processor.encode(conversation, True, as_published=True)


def test_a_question_is_the_beginning_of_its_conversation(processor):
    asked = processor.encode_question("what is this ?")
    trained = processor.encode(turns("what is this ?\n<image>", "red"), True).expanded(VISUAL_TOKENS, 100)
    assert np.array_equal(asked, trained.input_ids[: len(asked)])
    assert spelled(processor, trained.labels[len(asked) :]) == "red <end_of_turn> / <eos>"
    assert spelled(processor, asked[-2:]) == "model /"


@pytest.mark.parametrize("size", [(40, 28), (28, 40), (32, 32), (300, 33), (7, 5)])
def test_pixels_equal_those_of_clip_image_processor(size):
    image = make_image(5, size)
    theirs = CLIPImageProcessor(size={"shortest_edge": AUX_SIDE}, crop_size={"height": AUX_SIDE, "width": AUX_SIDE})
    square = theirs(image, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(make_processor().pixels(image), square)
    grey = pad_to_square(image, (122, 116, 104))
    padded = theirs(grey, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(make_processor("pad").pixels(image), padded)


@pytest.mark.parametrize("size", [(900, 3), (3, 900), (400, 70), (70, 400), (33, 7), (301, 300)])
def test_a_square_too_large_to_be_made_comes_out_the_same(monkeypatch, size):
    image = make_image(6, size)
    whole = [make_processor(aspect).pixels(image) for aspect in ("pad", "square")]
    monkeypatch.setattr(processing, "MOST_PADDED", 0)
    monkeypatch.setattr(pixels, "MOST_RESIZED", 0)
    assert all(
        torch.equal(make_processor(aspect).pixels(image), one)
        for aspect, one in zip(("pad", "square"), whole, strict=True)
    )


def test_padding_keeps_the_picture_in_the_middle():
    square = np.array(pad_to_square(make_image(1, (40, 28)), (1, 2, 3)))
    assert square.shape == (40, 40, 3)
    assert np.array_equal(square[6:34], np.array(make_image(1, (40, 28))))
    assert (square[:6] == (1, 2, 3)).all() and (square[34:] == (1, 2, 3)).all()


def test_a_tokenizer_without_turns_is_refused():
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="not a tokenizer of Gemma's instruction models"):
        Processor(tokenizer, CLIPImageProcessor(), MGMConfig())


def test_a_saved_processor_is_the_same(processor, tmp_path):
    processor.save(tmp_path)
    config = MGMConfig(vision_config={"image_size": SIDE, "patch_size": 4}, image_size_aux=AUX_SIDE)
    again = Processor.load(tmp_path, tmp_path, config)
    assert np.array_equal(again.encode_question("what ?"), processor.encode_question("what ?"))
    torch.testing.assert_close(again.pixels(make_image(0)), processor.pixels(make_image(0)))

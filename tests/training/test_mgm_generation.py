"""Answers: the same in a batch as alone."""

import pytest
import torch
from tiny_mgm import make_image, make_talker

from bettersynth.training.mgm.generation import Question, answer_questions
from bettersynth.training.mgm.model import MGMForConditionalGeneration
from bettersynth.training.mgm.processing import Processor


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_talker(tmp_path_factory.mktemp("talker"))


def ask(checkpoint, questions, batch):
    return answer_questions(checkpoint, questions, max_new_tokens=8, batch=batch, precision="fp32")


def test_answers_are_the_same_in_a_batch_as_alone(checkpoint):
    questions = [
        Question(number, " ".join(["what is this ?", *[["red", "blue"][number % 2]] * (number % 5)]), image)
        for number, image in enumerate([*map(make_image, range(9)), None, None])
    ]
    alone = ask(checkpoint, questions, 1)
    assert len(set(alone)) > 3
    assert ask(checkpoint, questions, 4) == ask(checkpoint, questions, 16) == alone


def test_greedy_answers_equal_a_loop_over_whole_sequences(checkpoint):
    model = MGMForConditionalGeneration.from_pretrained(checkpoint).eval()
    processor = Processor.load(checkpoint, checkpoint, model.config)
    image = make_image(3)
    ids = torch.from_numpy(processor.encode_question("what is this ?")).long()[None]
    start = ids.shape[1]
    for _ in range(8):
        logits = model(input_ids=ids, pixel_values=processor.pixels(image)[None]).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
        if ids[0, -1] == processor.tokenizer.eos_token_id:
            break
    expected = processor.tokenizer.decode(ids[0, start:], skip_special_tokens=True).strip()
    assert len(expected.split()) > 2
    assert ask(checkpoint, [Question(0, "what is this ?", image)], 1) == [expected]


def test_only_the_end_of_sequence_ends_an_answer(checkpoint, monkeypatch):
    """As in the kit: `<end_of_turn>` is a token like others while decoding, and is cut out of the text."""
    seen = {}
    original = MGMForConditionalGeneration.generate

    def generate(model, **options):
        seen.update(options)
        original(model, **options)
        tokenizer_ids = {"red": 9, "<end_of_turn>": 5, "\n": 6, "green": 10, "<eos>": 1, "<pad>": 0}
        words = ["red", "<end_of_turn>", "\n", "green", "<eos>", "<pad>"]
        return torch.tensor([[tokenizer_ids[word] for word in words]])

    monkeypatch.setattr(MGMForConditionalGeneration, "generate", generate)
    answer = ask(checkpoint, [Question(0, "what ?", make_image(0))], 1)[0]
    assert answer.split() == ["red", "green"]
    assert seen["eos_token_id"] == 1 and seen["do_sample"] is False


def test_an_unreadable_image_names_its_question(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="question q7: image missing"):
        ask(checkpoint, [Question("q7", "what ?", tmp_path / "none.png")], 1)
    with pytest.raises(ValueError, match="question q8: image"):
        ask(checkpoint, [Question("q8", "what ?", b"no image")], 1)


def test_a_picture_is_read_alike_from_a_file_and_from_its_bytes(checkpoint, tmp_path):
    """As MMBench's, which come in base64; damaged EXIF data turn neither."""
    path = tmp_path / "a.png"
    make_image(0).save(path, exif=b"Exif\0\0no TIFF")
    sources = [make_image(0), path, path.read_bytes()]
    assert len({ask(checkpoint, [Question(0, "what ?", source)], 1)[0] for source in sources}) == 1

"""Answers: the same in a batch as alone, and the kit's files for the two benchmarks."""

import base64
import io
import json

import pytest
import torch
from tiny_mgm import AUX_SIDE, make_image, make_parts, make_run

from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import write_json
from bettersynth.evaluation.mmbench import score_mmbench
from bettersynth.evaluation.textvqa import score_textvqa
from bettersynth.training.mgm.generation import Question, answer_questions, mmbench_prompt, write_answers
from bettersynth.training.mgm.model import MGMForConditionalGeneration
from bettersynth.training.mgm.processing import Processor


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return make_parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def checkpoint(parts, tmp_path_factory):
    """A model whose answers differ between questions."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model = MGMForConditionalGeneration.from_parts(**parts, image_size_aux=AUX_SIDE, image_aspect="pad", seed=1)
    generator = torch.Generator().manual_seed(2)
    matrices = [weight for weight in model.language_model.model.layers.parameters() if weight.ndim == 2]
    for weight in [*matrices, model.connector.projector[2].weight]:
        torch.nn.init.normal_(weight, std=0.6, generator=generator)
    model.save_pretrained(folder)
    Processor.load(parts["language_model"], parts["vision_tower"], model.config).save(folder)
    return folder


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


def test_mmbench_prompt():
    assert mmbench_prompt("what ?", None, ["red", "blue"]) == "what ?\nA. red\nB. blue"
    assert mmbench_prompt("what ?", "this is red", ["one", "two", "a", "an"]) == (
        "this is red\nwhat ?\nA. one\nB. two\nC. a\nD. an"
    )


@pytest.fixture
def run(checkpoint, tmp_path):
    """A finished run of recipe `tiny` with questions of both benchmarks beside it."""
    training = make_run(tmp_path)
    folder = tmp_path / "images"
    textvqa = [
        {
            "question_id": f"{number}",
            "image": f"{number}.png",
            "text": "what is this ?\nReference OCR token: one , two\nDescribe it .",
        }
        for number in range(3)
    ]
    (tmp_path / "textvqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in textvqa))
    annotations = [
        {
            "image_id": f"{number}",
            "question": "what is this ?",
            "question_id": number,
            "answers": ["red"] * 10,
        }
        for number in range(3)
    ]
    write_json(tmp_path / "annotations.json", {"data": annotations})
    image = io.BytesIO()
    make_image(1).save(image, "PNG")
    encoded = base64.b64encode(image.getvalue()).decode()
    header = "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage\tsource\tl2-category\tcomment\tsplit"
    rows = [
        f"7\twhat is this ?\tit is red\tred\tblue\tgreen\t\tA\tcolour\t{encoded}\tx\tcoarse\t\tdev",
        f"1000007\twhat is this ?\tit is red\tblue\tgreen\tred\t\tC\tcolour\t{encoded}\tx\tcoarse\t\tdev",
        f"8\tis it a circle ?\tNONE\tone\ttwo\t\t\tB\tshape\t{encoded}\tx\tcoarse\t\tdev",
    ]
    (tmp_path / "mmbench.tsv").write_text("\n".join([header, *rows]) + "\n")
    configuration = Configuration.model_validate(
        training.model_dump(by_alias=True)
        | {
            "evaluation": {
                "textvqa": {
                    "questions": str(tmp_path / "textvqa.jsonl"),
                    "annotations": str(tmp_path / "annotations.json"),
                    "images": str(folder),
                    "max_new_tokens": 4,
                },
                "mmbench": {"questions": str(tmp_path / "mmbench.tsv"), "max_new_tokens": 4},
                "batch": 2,
                "precision": "fp32",
            }
        }
    )
    layout = Layout(tmp_path / "results")
    write_json(layout.finetune("tiny", 1) / "card.json", {"status": "done", "sha256": "of the model"})
    (layout.finetune("tiny", 1) / "checkpoint").symlink_to(checkpoint)
    return configuration, layout


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_textvqa_answers_are_in_the_kits_form_and_score(run):
    configuration, layout = run
    write_answers("textvqa", "tiny", 1, configuration, layout)
    path = layout.answers("tiny", 1, "textvqa")
    answers = lines(path)
    assert [answer["question_id"] for answer in answers] == ["0", "1", "2"]
    assert all(answer.keys() == {"question_id", "prompt", "text", "model_id"} for answer in answers)
    assert answers[0]["prompt"] == "what is this ?\nReference OCR token: one , two\nDescribe it ."
    assert answers[0]["model_id"] == "tiny-seed-1"
    section = configuration.evaluation.textvqa
    assert score_textvqa(section.questions, section.annotations, path)["questions"] == 3


def test_mmbench_answers_are_in_the_kits_form_and_score(run):
    configuration, layout = run
    write_answers("mmbench", "tiny", 1, configuration, layout)
    path = layout.answers("tiny", 1, "mmbench")
    answers = lines(path)
    assert [answer["question_id"] for answer in answers] == [7, 1000007, 8]
    assert answers[1]["prompt"] == "it is red\nwhat is this ?\nA. blue\nB. green\nC. red"
    assert answers[1]["options"] == ["blue", "green", "red"] and answers[1]["option_char"] == ["A", "B", "C"]
    assert answers[2]["prompt"] == "is it a circle ?\nA. one\nB. two"
    assert len({answer["answer_id"] for answer in answers}) == 3
    again = path.read_bytes()
    write_answers("mmbench", "tiny", 1, configuration, layout)
    assert path.read_bytes() == again
    assert score_mmbench(configuration.evaluation.mmbench.questions, path)["rows"] == 3


def test_a_stopped_seed_answers_nothing(run):
    configuration, layout = run
    write_json(layout.finetune("tiny", 1) / "card.json", {"status": "stopped"})
    write_answers("textvqa", "tiny", 1, configuration, layout)
    assert layout.answers("tiny", 1, "textvqa").read_bytes() == b""

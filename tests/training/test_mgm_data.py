"""Samples, batches, and the order of training."""

import json
from collections import Counter

import pytest
import torch
from PIL import Image
from tiny_mgm import AUX_SIDE, SIDE, VISUAL_TOKENS, conversation, make_image, make_tokenizer, text_only
from transformers import CLIPImageProcessor

from bettersynth.configuration.pool import Reading
from bettersynth.training.mgm.data import Collator, ConversationDataset, Lost, TrainingDataError, TrainingOrder
from bettersynth.training.mgm.model import IGNORE_INDEX, IMAGE_TOKEN_INDEX, MGMConfig
from bettersynth.training.mgm.processing import Processor


def open_dataset(folder, rows, max_length=64, **options):
    (folder / "data.json").write_text(json.dumps(rows))
    for number in range(3):
        make_image(number).save(folder / f"{number}.png")
    config = MGMConfig(vision_config={"image_size": SIDE, "patch_size": 4}, image_size_aux=AUX_SIDE)
    processor = Processor(make_tokenizer(), CLIPImageProcessor(), config)
    return ConversationDataset(
        folder / "data.json", folder.joinpath, processor, max_length=max_length, reading=Reading(10_000), **options
    )


def test_a_batch_is_padded_on_the_right_and_has_the_images_of_its_rows(tmp_path):
    dataset = open_dataset(tmp_path, [conversation(0), text_only(1), conversation(2, "red")])
    samples = [dataset[number] for number in range(3)]
    batch = Collator(0, AUX_SIDE)(samples)
    assert batch["input_ids"].shape == batch["labels"].shape == (3, len(samples[0]["input_ids"]))
    short = len(samples[2]["input_ids"])
    assert (batch["input_ids"][2, short:] == 0).all() and (batch["labels"][2, short:] == IGNORE_INDEX).all()
    assert batch["pixel_values"].shape == (2, 3, AUX_SIDE, AUX_SIDE)
    torch.testing.assert_close(batch["pixel_values"][1], samples[2]["pixels"])
    assert [(row == IMAGE_TOKEN_INDEX).sum() for row in batch["input_ids"]] == [
        VISUAL_TOKENS,
        0,
        VISUAL_TOKENS,
    ]


def test_a_batch_is_as_long_as_a_multiple_of_tokens(tmp_path):
    dataset = open_dataset(tmp_path, [text_only(1)])
    sample = dataset[0]
    usual = Collator(0, AUX_SIDE)([sample])
    batch = Collator(0, AUX_SIDE, multiple=32)([sample])
    length = len(sample["input_ids"])
    assert batch["input_ids"].shape == batch["labels"].shape == (1, -(-length // 32) * 32)
    assert length % 32
    for key, padding in [("input_ids", 0), ("labels", IGNORE_INDEX)]:
        assert (batch[key][0, :length] == usual[key][0]).all() and (batch[key][0, length:] == padding).all()


def test_a_batch_of_text_alone_has_no_images(tmp_path):
    dataset = open_dataset(tmp_path, [text_only(1)])
    assert Collator(0, AUX_SIDE)([dataset[0]])["pixel_values"].shape == (0, 3, AUX_SIDE, AUX_SIDE)


def test_an_image_beyond_the_cut_is_left_out_with_its_tokens(tmp_path):
    late = conversation(0)
    late["conversations"] = [
        *text_only(1)["conversations"],
        *({**turn} for turn in late["conversations"]),
    ]
    samples = [open_dataset(tmp_path, [late], max_length)[0] for max_length in (2048, 8)]
    assert [sample["pixels"] is None for sample in samples] == [False, True]
    for sample in samples:
        batch = Collator(0, AUX_SIDE)([sample])
        assert len(batch["pixel_values"]) == (IMAGE_TOKEN_INDEX in batch["input_ids"])


def test_an_unreadable_image_is_an_error_that_names_the_record(tmp_path):
    dataset = open_dataset(tmp_path, [conversation(0), conversation(1), conversation(2)])
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "2.png").unlink()
    assert dataset[0]["pixels"] is not None
    with pytest.raises(TrainingDataError, match=r"record 0001 \(number 1\): image unreadable"):
        dataset[1]
    with pytest.raises(TrainingDataError, match=r"record 0002 \(number 2\): image missing"):
        dataset[2]


def test_a_picture_lost_since_the_preflight_ends_nothing_where_rows_may_be_dropped(tmp_path):
    rows = [conversation(0), conversation(1), conversation(2), conversation(1)]
    lost = Lost(tmp_path / "lost.jsonl", 0.5)
    dataset = open_dataset(tmp_path, rows, lost=lost)
    before = dataset[0]
    (tmp_path / "1.png").unlink()
    for number in (1, 3, 1):
        sample = dataset[number]
        assert sample["pixels"] is None and IMAGE_TOKEN_INDEX not in sample["input_ids"]
        assert (sample["labels"] == IGNORE_INDEX).all()
    batch = Collator(0, AUX_SIDE)([dataset[0], dataset[1]])
    assert len(batch["pixel_values"]) == 1 and torch.equal(dataset[0]["input_ids"], before["input_ids"])
    assert lost.rows() == 2, "each once"
    assert json.loads((tmp_path / "lost.jsonl").read_text().splitlines()[0])["id"] == "0001"
    (tmp_path / "2.png").unlink()
    with pytest.raises(TrainingDataError, match=r"3 of 4 rows have lost their pictures .* unusable_share 0\.5"):
        dataset[2]


def test_an_image_whose_exif_data_are_damaged_is_trained_on(tmp_path):
    dataset = open_dataset(tmp_path, [conversation(0)])
    plain = dataset[0]["pixels"]
    with Image.open(tmp_path / "0.png") as image:
        image.load()
    image.save(tmp_path / "0.png", exif=b"Exif\0\0no TIFF")
    assert torch.equal(dataset[0]["pixels"], plain)


def test_a_bad_conversation_is_refused_before_training_begins(tmp_path):
    with pytest.raises(TrainingDataError, match=r"data.json: record 0007 \(number 1\): an answer is empty"):
        open_dataset(tmp_path, [conversation(0), conversation(7, "")])


def test_what_is_cut_is_counted(tmp_path):
    rows = [conversation(0, "a"), conversation(1, "a red square in the picture ."), text_only(0)]
    whole = open_dataset(tmp_path, rows)
    assert whole.truncation() == {"cut": 0, "nothing_left": 0}
    shortest = len(whole[0]["labels"])
    cut = open_dataset(tmp_path, rows, max_length=shortest)
    assert cut.truncation() == {"cut": 1, "nothing_left": 0}
    assert len(cut[1]["labels"]) == shortest
    assert open_dataset(tmp_path, rows, max_length=8).truncation() == {"cut": 3, "nothing_left": 3}


def test_samples_whose_answers_are_all_cut_are_refused_and_some_are_told(tmp_path):
    whole = open_dataset(tmp_path, [conversation(0), text_only(1)])
    assert whole.without_answers() == ""
    with pytest.raises(TrainingDataError, match="nothing to learn: 2 of 2 samples are cut before their answers, at "):
        open_dataset(tmp_path, [conversation(0), conversation(1)], max_length=8).check_answers()
    some = open_dataset(tmp_path, [conversation(0), text_only(1)], max_length=VISUAL_TOKENS + 2)
    assert some.without_answers().startswith("1 of 2 samples are cut") and "raise it" in some.without_answers()


def test_an_epoch_has_every_row_once_but_for_an_unfilled_step():
    order = list(TrainingOrder(rows=22, global_batch=4, steps=10, seed=1))
    assert len(order) == 40
    for epoch in (order[:20], order[20:]):
        assert max(Counter(epoch).values()) == 1
    assert order[:20] != order[20:]


def test_the_order_is_the_seeds_alone():
    first, same, other = (list(TrainingOrder(50, 5, 10, seed=seed)) for seed in (7, 7, 8))
    assert first == same != other
    assert list(TrainingOrder(50, 5, 4, seed=7)) == first[:20]


def test_fewer_rows_than_a_step_are_refused():
    with pytest.raises(TrainingDataError, match="3 rows are fewer than one global batch of 4"):
        TrainingOrder(rows=3, global_batch=4, steps=1, seed=1)


def test_grouping_puts_one_modality_and_like_lengths_together():
    words = torch.randint(1, 100, (203,), generator=torch.Generator().manual_seed(0)).tolist()
    lengths = [-count if number % 3 == 0 else count for number, count in enumerate(words)]
    order = list(TrainingOrder(203, 16, 12, seed=1, lengths=lengths))
    assert max(Counter(order).values()) == 1
    steps = [order[start : start + 16] for start in range(0, len(order), 16)]
    assert sum(len({lengths[row] > 0 for row in step}) == 1 for step in steps) == 12
    for step in steps:
        in_order = [abs(lengths[row]) for row in step]
        assert in_order == sorted(in_order, reverse=True)
    assert [lengths[step[0]] > 0 for step in steps] != sorted((lengths[step[0]] > 0 for step in steps), reverse=True)

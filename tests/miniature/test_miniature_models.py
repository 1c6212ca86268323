"""The miniature's models: their tokenizers, what they learn from, and what the shipped ones are worth."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer, CLIPTokenizer

from miniature import cards, material, models, quality, tokenizers
from miniature.captions import caption, long_caption
from miniature.world import MODELS_START, Sign, generator, sample_scene

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "resources/miniature/models"


@pytest.fixture(scope="module")
def exam() -> quality.Exam:
    return quality.Exam(SHIPPED, 950_000, 950_080, batch=40)


# --- tokenizers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip", "blip_itm", "blip2", "llava", "gemma"])
def test_captions_survive_encoding_and_decoding_word_by_word(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED / name, local_files_only=True)
    for index in range(20):
        scene = sample_scene(1, index)
        for text in (caption(scene, generator(1, index)), long_caption(scene, generator(1, index))):
            ids = tokenizer(text, add_special_tokens=False).input_ids
            decoded = tokenizer.decode(ids, clean_up_tokenization_spaces=True).strip()
            assert decoded.replace(" .", ".").replace(" ,", ",") == text
            assert len(ids) == len(text.replace(".", " .").replace(",", " ,").split()), "a word is one token"


@pytest.mark.parametrize("name", ["clip", "blip_itm", "blip2", "llava", "gemma"])
def test_unknown_words_are_spelled_not_lost(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED / name, local_files_only=True)
    ids = tokenizer("a zebra", add_special_tokens=False).input_ids
    assert tokenizer.decode(ids).replace(" ", "") == "azebra"


def test_gemma_turns_have_the_tokens_of_the_template() -> None:
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED / "gemma", local_files_only=True)
    turns = [{"role": "user", "content": "what colour is the ring?"}, {"role": "assistant", "content": "red"}]
    ids = tokenizer.apply_chat_template(turns)
    opening = ["<bos>", "<start_of_turn>", "u", "##s", "##e", "##r", "\n"]
    ending = ["model", "\n", "red", "<end_of_turn>", "\n"]
    assert tokenizer.convert_ids_to_tokens([*ids[:7], *ids[-5:]]) == [*opening, *ending]


def test_blip2_has_data_juicers_image_token_and_prints_nothing_when_opened() -> None:
    code = (
        f"from transformers import AutoTokenizer as A; print(A.from_pretrained({str(SHIPPED / 'blip2')!r})('<image>'))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.startswith(f"{{'input_ids': [2, {tokenizers.OPT_IMAGE_ID}]") and len(answer.stdout) < 200


def test_tokenizers_are_the_same_whenever_built(tmp_path: Path) -> None:
    words = models.language()
    for number in (1, 2):
        tokenizers.clip_tokenizer(words).save_pretrained(tmp_path / str(number))
    assert (tmp_path / "1/tokenizer.json").read_bytes() == (tmp_path / "2/tokenizer.json").read_bytes()
    slow = CLIPTokenizer.from_pretrained(tmp_path / "1")
    fast = AutoTokenizer.from_pretrained(tmp_path / "1")
    assert slow("a red zebra").input_ids == fast("a red zebra").input_ids


def test_every_word_of_questions_and_captions_is_known() -> None:
    known = set(AutoTokenizer.from_pretrained(SHIPPED / "gemma", local_files_only=True).get_vocab())
    texts = [turn for number in range(40) for pair in material.sample(0, number)[2]["turns"] for turn in pair]
    assert set(tokenizers.lexicon(texts)) <= known


# --- what the models learn from ----------------------------------------------------------------------


def test_material_is_the_same_on_any_number_of_workers(tmp_path: Path) -> None:
    for workers in (1, 2):
        material.write(tmp_path / str(workers), seed=0, scenes=3, workers=workers)
    one, two = (material.Material(tmp_path / str(workers)) for workers in (1, 2))
    assert np.array_equal(one.images, two.images) and list(one.texts()) == list(two.texts())


def test_phrases_stand_where_the_scene_says() -> None:
    known = set(material.all_phrases())
    for index in range(MODELS_START, MODELS_START + 60):
        scene, dice = sample_scene(0, index), generator(0, index)
        present = material.present_phrases(scene, dice)
        absent = material.absent_phrases(scene, dice, 6)
        assert {phrase.text for phrase in (*present, *absent)} <= known
        assert len({phrase.cell for phrase in present}) == len(present), "two phrases claim one patch"
        assert not {phrase.text for phrase in present} & {phrase.text for phrase in absent}


def test_patch_labels_name_things_and_the_sign() -> None:
    scene = next(scene for index in range(99) if (scene := sample_scene(0, index)).sign)
    labels = dict(zip(material.PATCH_LABELS, material.patch_labels(scene), strict=True))
    for item in (*scene.things, scene.sign):
        assert item
        cell = int(item.y // material.PATCH) * material.GRID + int(item.x // material.PATCH)
        kind = "word" if isinstance(item, Sign) else "colour"
        assert material.PATCH_LABELS[kind][labels[kind][cell] - 1] == getattr(item, kind)


# --- quality -----------------------------------------------------------------------------------------


def test_auroc_counts_ties_half() -> None:
    assert quality.auroc(np.array([1.0, 2.0]), np.array([0.0, 1.0])) == pytest.approx(0.875)


@pytest.mark.parametrize("name", ["clip", "blip_itm", "aesthetics", "watermark", "nsfw", "owlvit"])
def test_shipped_scorers_meet_their_targets(exam: quality.Exam, name: str) -> None:
    figures = quality.measure(exam, [name])
    for figure, value in figures.items():
        assert quality.meets(figure, value) is not False, (figure, value)


def test_every_shipped_folder_has_a_card_and_no_pickle() -> None:
    for folder in (SHIPPED / quality.FOLDERS.get(name, name) for name in cards.FIGURES):
        rounds = json.loads((folder / "training.json").read_text(encoding="utf-8"))["rounds"]
        assert rounds and all(done["steps"] for done in rounds)
        assert "| figure | value | target |" in (folder / "README.md").read_text(encoding="utf-8")
        assert list(folder.rglob("*.safetensors")) and not list(folder.rglob("*.bin"))


def test_training_runs_and_resumes_from_what_it_wrote(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "miniature.train_models", "train", "--only", "nsfw", "--scenes", "40"]
    command += ["--out", tmp_path, "--pace", "0.002", "--batch", "0.03", "--device", "cpu", "--workers", "1"]
    subprocess.run(command, check=True, capture_output=True)
    subprocess.run([*command, "--resume"], check=True, capture_output=True)
    trained = json.loads((tmp_path / "nsfw/training.json").read_text(encoding="utf-8"))
    assert [done["steps"] for done in trained["rounds"]] == [2, 2]
    assert "nsfw_auroc" in quality.measure(quality.Exam(tmp_path, 0, 4), ["nsfw"])

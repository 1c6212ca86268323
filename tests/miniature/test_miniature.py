"""The miniature's world: truth, formats, proportions, and the same bytes everywhere."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bettersynth.core.records import caption_of
from miniature import captions, defects, questions, world
from miniature.faults import FAULTS_START
from miniature.render import VERSION, render_world

SCRIPTS = Path(__file__).parents[2] / "scripts"
SMALL = {"second_records": 60, "textvqa": 40, "mmbench": 32, "instructions": 80, "faults": True}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world of two raw files with faults."""
    out = tmp_path_factory.mktemp("miniature") / "world"
    render_world(out, 300, 7, **SMALL)
    return out


def words(text: str) -> set[str]:
    return set(re.findall("[a-z]+", text.lower()))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# --- scenes --------------------------------------------------------------------------------------


def test_things_differ_and_stay_inside_the_picture():
    for index in range(500):
        scene = world.sample_scene(3, index)
        for attribute in ("colour", "shape", "place"):
            values = [getattr(thing, attribute) for thing in scene.things]
            assert len(set(values)) == len(values)
        assert sum(thing.action is not None for thing in scene.things) <= 1
        for item in (*scene.things, *([scene.sign] if scene.sign else [])):
            assert min(item.box) >= 0 and max(item.box) <= world.SIZE
        assert scene.sign is None or scene.sign.place not in {thing.place for thing in scene.things}


def test_a_scene_can_be_asked_for_with_sign_and_action():
    assert all(world.sample_scene(0, index, sign=True).sign for index in range(50))
    assert not any(world.sample_scene(0, index, sign=False).sign for index in range(50))
    assert all(world.sample_scene(0, index, action=True).acting for index in range(50))


def test_the_picture_shows_the_colours():
    """The pixels in the middle of a disc are nearer to its colour than to any other, in every style."""
    names = list(world.COLOURS)
    palette = np.array([world.COLOURS[name] for name in names], float)
    for style in world.STYLES:
        for colour in names:
            thing = world.Thing(colour, "circle", "large", "left", None, 22, 48, 14)
            picture = np.asarray(world.render(world.Scene((thing,), None, style, 0)), float)
            seen = picture[44:53, 18:27].mean((0, 1))
            shown = np.array([world._tone(rgb, style) for rgb in palette])
            assert names[np.argmin(((shown - seen) ** 2).sum(1))] == colour


def test_every_attribute_changes_the_picture():
    scene = world.sample_scene(0, 4, sign=True, action=True)
    plain = np.asarray(world.render(scene), int)
    for seed in range(40):
        for attribute, altered in defects._alterations(scene, random.Random(seed)):
            if attribute not in ("size", "place"):  # these say where a thing is drawn when a scene is sampled
                assert np.abs(np.asarray(world.render(altered), int) - plain).sum() > 500, attribute


def test_owners_name_what_stands_in_a_patch():
    scene = world.sample_scene(0, 4, sign=True)
    owners = scene.owners(8)
    assert len(owners) == (world.SIZE // 8) ** 2
    assert set(owners) == {*scene.things, scene.sign, None}
    left, top, right, bottom = scene.sign.box
    assert owners[(top + bottom) // 2 // 8 * 12 + (left + right) // 2 // 8] is scene.sign


# --- captions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [captions.caption, captions.full_caption, captions.long_caption])
def test_right_captions_are_right_and_use_the_vocabulary(write):
    for index in range(800):
        scene = world.sample_scene(1, index)
        text = write(scene, world.generator(1, index, "test"))
        assert captions.is_right(text, scene), (text, scene)
        assert text == text.lower()
        assert words(text) <= set(captions.VOCABULARY)


@pytest.mark.parametrize("write", [captions.full_caption, captions.long_caption])
def test_full_captions_read_back_to_the_whole_scene(write):
    for index in range(400):
        scene = world.sample_scene(2, index)
        claims = captions.read(write(scene, world.generator(2, index, "test")))
        read = {(c.colour, c.shape, c.size, c.place, c.action) for c in claims.things}
        assert read == {(t.colour, t.shape, t.size, t.place, t.action) for t in scene.things}
        truth = scene.truth()
        assert [claims.sign, claims.sign_place, claims.style] == [truth[key] for key in ("sign", "sign_place", "style")]


def test_captions_are_as_long_as_the_contest_s():
    sampled = [defects.sample_pair(0, index).right_caption for index in range(2000)]
    lengths = [len(text.split()) for text in sampled]
    assert 9 <= np.mean(lengths) <= 12.5
    assert len(set(sampled)) > 1700
    assert len(captions.VOCABULARY) <= 200


@pytest.mark.parametrize("write", [captions.caption, captions.full_caption, captions.long_caption])
def test_one_attribute_wrong_is_found_to_be_wrong(write):
    changed = Counter()
    for index in range(600):
        scene = world.sample_scene(5, index)
        right, wrong, attribute = defects.one_attribute_wrong(scene, world.generator(5, index, "test"), write)
        assert captions.is_right(right, scene) and not captions.is_right(wrong, scene), (right, wrong)
        assert len(captions.errors(wrong, scene)) >= 1
        changed[attribute] += 1
    assert set(changed) == set(defects.ATTRIBUTES)


def test_a_sign_s_word_is_no_claim_elsewhere():
    scene = world.sample_scene(0, 0, sign=True)
    scene = dataclasses.replace(scene, sign=dataclasses.replace(scene.sign, word="gold"))
    assert captions.read("a gold sign").sign is None
    assert captions.errors("a sign that says park", scene) == ["sign"]


# --- defects -------------------------------------------------------------------------------------


def test_defects_have_their_rates_and_the_truth_agrees_with_the_caption():
    count = 6000
    found: Counter[str] = Counter()
    for index in range(count):
        pair = defects.sample_pair(11, index)
        found.update(pair.defects or ["clean"])
        assert captions.is_right(pair.caption, pair.scene) == pair.caption_right, pair
        assert captions.is_right(pair.right_caption, pair.scene)
        assert words(pair.caption) <= {*captions.VOCABULARY, *defects.SPOILT_VOCABULARY}
    for defect, rate in {**defects.TEXT_RATES, **defects.IMAGE_RATES}.items():
        assert found[defect] / count == pytest.approx(rate, abs=4 * (rate / count) ** 0.5), defect
    assert 0.22 < found["clean"] / count < 0.29


def test_pairs_do_not_depend_on_the_pool_s_size_and_twins_come_later():
    pairs = (defects.sample_pair(0, index) for index in range(2000))
    twins = [pair for pair in pairs if pair.twin_of is not None]
    assert twins
    for twin in twins:
        original = defects.sample_pair(0, twin.twin_of)
        assert twin.twin_of < twin.index and not original.defects
        same = np.array_equal(np.asarray(defects.draw(twin, 0)), np.asarray(defects.draw(original, 0)))
        assert same == ("duplicate" in twin.defects) == (twin.caption == original.caption)


def test_spoilt_pictures_differ_from_the_scene():
    for index in range(1000):
        pair = defects.sample_pair(0, index)
        spoilt = any(defect in defects.IMAGE_RATES for defect in pair.defects)
        drawn, scene = np.asarray(defects.draw(pair, 0), int), np.asarray(world.render(pair.scene), int)
        moved = np.abs(drawn - scene).mean()
        assert moved > 1 if spoilt else moved == 0, pair.defects


# --- files ---------------------------------------------------------------------------------------


def test_pool_lines_are_the_contest_s(rendered: Path):
    broken = {fault["line"] for fault in json.loads((rendered / "faults.json").read_text())}
    raw = (rendered / "mgm_pretrain_stage_1.jsonl").read_bytes().split(b"\n")
    assert len(raw) == 300 + len(broken)
    good = [json.loads(line) for number, line in enumerate(raw, 1) if number not in broken]
    second = lines(rendered / "mgm_pretrain_stage_2.jsonl")
    assert [record["id"] for record in good + second] == [f"{index:09d}" for index in range(360)]
    for record in good + second:
        assert list(record) == ["id", "text", "images"]
        assert re.fullmatch(r"<__dj__image>\n[^\n<>]+ <\|__dj__eoc\|>", record["text"])
        assert record["images"] == [f"images/{record['id'][:5]}/{record['id']}.jpg"]
        with Image.open(rendered / record["images"][0]) as image:
            image.load()
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (world.SIZE, world.SIZE))


def test_restore_files_cover_all_records_with_the_same_captions(rendered: Path):
    texts = {}
    for number in (1, 2):
        for original in json.loads((rendered / f"stage_{number}.json").read_text()):
            human, gpt = original["conversations"]
            assert list(original) == ["id", "image", "conversations"]
            assert (human["from"], gpt["from"]) == ("human", "gpt")
            assert human["value"].replace("<image>", "").strip() in questions.CAPTION_REQUESTS
            assert human["value"].count("<image>") == 1
            texts[original["id"]] = gpt["value"]
    truth = pq.read_table(rendered / "truth.parquet").to_pylist()
    faulty = {str(fault["id"]) for fault in json.loads((rendered / "faults.json").read_text())}
    sound = {identity: text for identity, text in texts.items() if int(identity) < FAULTS_START}
    assert sound == {row["id"]: row["caption"] for row in truth}
    assert texts.keys() - sound.keys() <= faulty and "900000098" in texts, "the kit's file knows faulty records too"
    for record in lines(rendered / "mgm_pretrain_stage_2.jsonl"):
        assert caption_of(record["text"]) == texts[record["id"]]


def test_truth_says_what_was_done(rendered: Path):
    truth = pq.read_table(rendered / "truth.parquet").to_pylist()
    counts = json.loads((rendered / "world.json").read_text())["counts"]
    assert counts["records"] == len(truth) == 360
    for flag in ("caption_right", *defects.DEFECTS):
        assert counts[flag] == sum(row[flag] for row in truth)
    assert counts["clean"] == sum(not any(row[defect] for defect in defects.DEFECTS) for row in truth)
    for row in truth:
        assert row["caption_right"] == (row["match"] == "right")
        assert (row["wrong"] is not None) == row["wrong_attribute"]
        assert (row["twin_of"] is not None) == (row["duplicate"] or row["near_duplicate"])
        assert len(row["colours"]) == len(row["actions"]) > 0


def test_each_fault_is_on_its_line_once(rendered: Path):
    raw = (rendered / "mgm_pretrain_stage_1.jsonl").read_bytes().split(b"\n")
    faults = {fault["kind"]: fault for fault in json.loads((rendered / "faults.json").read_text())}
    with pytest.raises(UnicodeDecodeError):
        raw[faults["not_utf8"]["line"] - 1].decode()
    assert faults["torn_line"]["line"] == len(raw)
    with pytest.raises(json.JSONDecodeError):
        json.loads(raw[-1])
    for kind in ("missing_image", "truncated_image", "path_leaves_folder", "duplicate_id", "empty_caption"):
        assert json.loads(raw[faults[kind]["line"] - 1])["id"] == faults[kind]["id"]
    with pytest.raises(OSError), Image.open(rendered / "images/90000/900000000.jpg") as image:
        image.load()
    assert not (rendered / "images/90000/900000004.jpg").exists()


def test_textvqa_has_the_real_files_fields(rendered: Path):
    rows = lines(rendered / "textvqa/llava_textvqa_val_v051_ocr.jsonl")
    annotations = json.loads((rendered / "textvqa/TextVQA_0.5.1_val.json").read_text())
    assert annotations["dataset_version"] == "0.5.1" and annotations["dataset_type"] == "val"
    by_key = {(entry["image_id"], entry["question"].lower()): entry for entry in annotations["data"]}
    assert len(rows) == len(by_key) == len(annotations["data"]) == 40
    helped = 0
    for row in rows:
        assert set(row) == {"image", "question_id", "text", "category"}
        assert row["image"] == f"{row['question_id']}.jpg"
        assert (rendered / "textvqa/train_images" / row["image"]).is_file()
        question, *middle, last = row["text"].split("\n")
        assert last == "Answer the question using a single word or phrase."
        entry = by_key[(row["question_id"], question)]
        (answer, votes), *_ = Counter(entry["answers"]).most_common()
        assert len(entry["answers"]) == 10 and votes >= 6 and answer in world.WORDS
        if middle:
            assert middle[0].startswith("Reference OCR token: ")
            tokens = middle[0].removeprefix("Reference OCR token: ").split(", ")
            assert len(tokens) == 4
            helped += answer in tokens
    assert 0.2 < helped / len(rows) < 0.6
    assert len({row["question_id"] for row in rows}) < len(rows)  # some images have two questions


def test_mmbench_circular_copies_are_consistent(rendered: Path):
    csv.field_size_limit(10**7)
    with (rendered / "mmbench/mmbench_dev_20230712.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert tuple(rows[0]) == questions.MMBENCH_COLUMNS
    groups = defaultdict(list)
    for row in rows:
        groups[int(row["index"]) % questions.CIRCULAR].append(row)
    assert len(groups) == 32
    sizes = set()
    for copies in groups.values():
        options = [[row[letter] for letter in "ABCD" if row[letter]] for row in copies]
        sizes.add(len(options[0]))
        assert [int(row["index"]) // questions.CIRCULAR for row in copies] == list(range(len(options[0])))
        assert {row[row["answer"]] for row in copies} == {copies[0][copies[0]["answer"]]}
        assert {row["answer"] for row in copies} == set("ABCD"[: len(copies)])
        for turn, turned in enumerate(options):
            assert turned == options[0][turn:] + options[0][:turn]
        same = ("question", "hint", "category", "image", "l2-category", "source", "split")
        assert all(row[column] == copies[0][column] for row in copies for column in same)
        with Image.open(io.BytesIO(base64.b64decode(copies[0]["image"]))) as image:
            assert image.size == (world.SIZE, world.SIZE)
    assert sizes == {2, 3, 4} or sizes == {2, 4}
    assert {row["category"] for row in rows} == set(questions.ABILITIES)
    assert {bool(row["hint"]) for row in rows} == {True, False}


def test_answers_are_true_of_the_scene():
    for index in range(300):
        scene = world.sample_scene(9, index)
        for ability in questions.askable(scene):
            question = questions.ask(ability, scene, world.generator(9, index, ability))
            truth = scene.truth()
            right = {
                "colour": truth["colours"],
                "shape": truth["shapes"],
                "size": truth["sizes"],
                "place": truth["places"],
                "action": truth["actions"],
                "word": [truth["sign"]],
                "style": [questions.STYLE_NAMES[truth["style"]]],
                "count": [captions.NUMBERS[len(scene.things)]],
            }[ability]
            assert question.answer in right and question.answer not in question.wrong
            if ability in ("size", "place"):  # the question names colour and shape of the thing it is about
                meant = [f"{thing.colour} {thing.shape}" in question.text for thing in scene.things]
                assert right[meant.index(True)] == question.answer


def test_instructions_are_in_llava_form(rendered: Path):
    records = json.loads((rendered / "finetune/mgm_instruction_stage_1.json").read_text())
    assert len({record["id"] for record in records}) == 80
    texts = []
    for record in records:
        turns = record["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        images = sum(turn["value"].count("<image>") for turn in turns)
        assert images == ("image" in record) == turns[0]["value"].startswith("<image>\n")
        if "image" in record:
            assert (rendered / "finetune" / record["image"]).is_file()
        texts += [turn["value"] for turn in turns]
    spoken = set().union(*(words(text.replace("<image>", "")) for text in texts))
    assert spoken <= set(questions.VOCABULARY)
    assert any(questions.LETTER_ANSWER in text for text in texts)
    assert any(questions.OCR_HEAD in text for text in texts)
    assert any("image" not in record for record in records)
    assert any(len(record["conversations"]) >= 6 for record in records)


def test_no_picture_of_the_questions_is_in_the_pool(rendered: Path):
    def pictures(folder: str) -> set[bytes]:
        return {path.read_bytes() for path in (rendered / folder).rglob("*.jpg")}

    with (rendered / "mmbench/mmbench_dev_20230712.tsv").open(encoding="utf-8", newline="") as file:
        mmbench = {base64.b64decode(row["image"]) for row in csv.DictReader(file, delimiter="\t")}
    sets = [pictures("images"), pictures("finetune/images"), pictures("textvqa/train_images"), mmbench]
    assert sum(map(len, sets)) == len(set().union(*sets))


# --- the same bytes, once ------------------------------------------------------------------------


def test_same_bytes_on_two_workers_and_another_hash_seed(tmp_path: Path):
    small = {"second_records": 5, "textvqa": 4, "mmbench": 8, "instructions": 6, "faults": True}
    render_world(tmp_path / "one", 1100, 3, **small)
    settings = tmp_path / "settings.yaml"
    settings.write_text(json.dumps({**small, "records": 5, "seed": 3}))
    command = [sys.executable, "-m", "miniature", "render", "--settings", settings, "--records", "1100"]
    subprocess.run(
        [*command, "--workers", "2", "--out", tmp_path / "two"],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONHASHSEED": "12345", "LC_ALL": "C"},
    )
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_a_finished_world_stays_and_a_killed_one_is_made_again(tmp_path: Path):
    out = tmp_path / "world"
    few = {"textvqa": 2, "mmbench": 2, "instructions": 2}
    render_world(out, 20, 0, **few)
    whole, stamps = tree(out), {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    render_world(out, 20, 0, **few)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == stamps

    (out / "world.json").unlink()
    (out / ".rendering").touch()
    (out / "truth.parquet").write_bytes(b"half")
    (out / "images/00000/000000099.jpg").write_bytes(b"left over")
    render_world(out, 20, 0, **few)
    assert tree(out) == whole

    render_world(out, 10, 0, **few)
    assert pq.read_table(out / "truth.parquet").num_rows == 10


def test_a_misspelt_setting_is_refused(tmp_path: Path):
    (tmp_path / "settings.yaml").write_text("recrods: 10\n")
    command = [sys.executable, "-m", "miniature", "render", "--settings", tmp_path / "settings.yaml"]
    done = subprocess.run([*command, "--out", tmp_path / "world"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "unknown key `recrods`; accepted are records" in done.stderr
    assert not (tmp_path / "world").exists()


def test_a_folder_of_other_origin_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="--out"):
        render_world(tmp_path, 10, 0)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_another_world_needs_another_version():
    """When this fails, the world has changed: raise `VERSION`, then put it and the new digest here."""
    pairs = [defects.sample_pair(0, index) for index in range(300)]
    pictures = [hashlib.sha256(defects.draw(pair, 0).tobytes()).hexdigest() for pair in pairs[:40]]
    asked = [questions.instruction(0, number)[0] for number in range(100)]
    scored = questions.textvqa(0, 20)[:2], [row | {"image": ""} for row in questions.mmbench(0, 16)]
    digest = hashlib.sha256(repr((pairs, pictures, asked, scored)).encode()).hexdigest()
    assert (VERSION, digest[:16]) == (2, "28554742bb7c8e32")

"""The training file: the kit's form, the kit's cap, and no row that could not be trained on."""

import json
import os
import random
import re
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pairs import configure_pairs, llava_pair, make_pool, pair, write_image
from PIL import ImageFile

from bettersynth.core.publish import read_json, sha256_file
from bettersynth.core.records import FAILED, IMAGE_TOKEN, ROWS, Record, read_records, text_of, write_records
from bettersynth.core.sharding import shard_name
from bettersynth.core.tables import read_table, write_table
from bettersynth.datasets.build import build_dataset
from bettersynth.pool.images import ImageRoots
from bettersynth.pool.llava import kit_cap
from bettersynth.training.preflight import PreflightError
from bettersynth.training.trainset import _without, build_held_out, build_trainset
from bettersynth.workflow.expected import Basis, Expected

DATASETS = {"all": {"from": "pool", "repeat": 1}, "twice": {"from": "all", "repeat": 2}}


def make(folder: Path, records, **sections):
    """A pool, its datasets built, and recipes over them."""
    sections = {"recipes": {"whole": {"dataset": "all"}}, "datasets": DATASETS} | sections
    configuration = configure_pairs(folder, {"one": records}, **sections)
    layout, plan = make_pool(configuration, folder)
    for name in configuration.datasets:
        build_dataset(name, configuration, layout, plan)
    return configuration, layout, plan


def trained(world, recipe="whole"):
    card = build_trainset(recipe, *world)
    path = world[1].trainset(recipe)
    assert read_json(world[1].trainset_card(recipe)) == card
    assert card["sha256"] == sha256_file(path)
    entries = json.loads(path.read_text(encoding="utf-8"))
    assert card["rows"] == len(entries) == card["preflight"]["rows"]
    return card, entries


def test_an_entry_is_the_kits(tmp_path):
    question = "Provide a brief description of the given image.\n<image>"
    restore = [
        llava_pair("b", "old"),
        {**llava_pair("a", "old"), "conversations": [{"from": "human", "value": question}]},
    ]
    (tmp_path / "stage_1.json").write_text(json.dumps([{"image": "x.png"}, *restore[:1], "torn"]))
    (tmp_path / "stage_2.json").write_text(json.dumps([*restore[1:], llava_pair("b", "x", question="Ignored?")]))
    files = [str(tmp_path / "stage_1.json"), str(tmp_path / "stage_2.json")]
    world = make(tmp_path, [pair("a", "a café"), pair("b", "two")], pool={"restore": files})
    card, entries = trained(world)
    assert entries[0] == {
        "id": "a",
        "image": "images/one.png",
        "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": "a café"}],
    }
    assert entries[1]["conversations"][0]["value"] == "What is it?\n<image>", "the file named first wins"
    assert card["preflight"] == {"rows": 2, "images": 1, "decoded": 0, "failures": 0}
    assert set(card["inputs"]) == {"all", *files}


def test_the_kits_own_converter_gives_the_same_entries(tmp_path, monkeypatch):
    from tools.fmt_conversion.multimodal.data_juicer_format_to_target_format import dj_to_llava

    records = [pair(f"{n}", f"caption  {n} \\ “é”") for n in range(5)] + [
        {"id": "s", "text": f"{IMAGE_TOKEN} spaced form <|__dj__eoc|>", "images": ["images/one.png"]}
    ]
    restore = tmp_path / "stage_1.json"
    restore.write_text(json.dumps([llava_pair(record["id"], "old", question=f"{record['id']}?") for record in records]))
    world = make(tmp_path, records, pool={"restore": [str(restore)]})
    _, entries = trained(world)
    theirs = tmp_path / "theirs.json"
    dj_to_llava.main(
        str(tmp_path / "one.jsonl"),
        str(theirs),
        image_special_token=IMAGE_TOKEN,
        restore_questions=True,
        original_llava_ds_path=str(restore),
    )
    assert entries == json.loads(theirs.read_text())


def test_a_file_in_llavas_form_asks_its_own_questions(tmp_path):
    """Without `restore`, with it, with ids and without; of two files with an id, the question goes with the record."""
    (tmp_path / "stage_1.json").write_text(json.dumps([llava_pair("a", "x", question="Restored?")]))
    nameless = {key: value for key, value in llava_pair("x", "nameless", question="Which?").items() if key != "id"}
    files = {
        "one": [pair("a", "plain"), pair("both", "first")],
        "two": [llava_pair("b", "own", question="Own?"), nameless, llava_pair("both", "second", question="Second?")],
    }
    for name, restore, plain in (("without", [], "Same?"), ("with", [str(tmp_path / "stage_1.json")], "Restored?")):
        folder = tmp_path / name
        folder.mkdir()
        records = {**files, "one": files["one"][: 1 if restore else 2]}
        pool = {"restore": restore}
        options = {"trainset": {"question": "Same?"}, "datasets": DATASETS, "recipes": {"whole": {"dataset": "all"}}}
        configuration = configure_pairs(folder, records, pool=pool, **options)
        layout, plan = make_pool(configuration, folder)
        build_dataset("all", configuration, layout, plan)
        _, entries = trained((configuration, layout, plan))
        asked = {entry["conversations"][1]["value"]: entry["conversations"][0]["value"] for entry in entries}
        last = {"first": "Same?\n<image>"} if not restore else {"second": "Second?\n<image>"}
        assert asked == {"plain": f"{plain}\n<image>", "own": "Own?\n<image>", "nameless": "Which?\n<image>", **last}


def test_an_id_without_question_is_named(tmp_path):
    (tmp_path / "stage_1.json").write_text(json.dumps([llava_pair("a", "old")]))
    world = make(tmp_path, [pair("a"), pair("lost")], pool={"restore": [str(tmp_path / "stage_1.json")]})
    with pytest.raises(ValueError, match=r"record `lost` has no question in .*stage_1\.json"):
        build_trainset("whole", *world)
    assert not world[1].trainset("whole").exists()


@given(st.integers(0, 300), st.integers(1, 300), st.integers(0, 5000))
def test_the_cap_is_the_kits_own_sampling(rows, cap, seed):
    entries = [f"entry {number}" for number in range(rows)]
    kept = kit_cap(rows, cap, seed)
    if rows <= cap:
        assert kept is None
    else:
        random.seed(seed)
        assert [entries[place] for place in kept] == random.sample(entries, cap)


def test_a_recipe_caps_its_own_way(tmp_path):
    records = [pair(f"{number:02d}") for number in range(20)]
    recipes = {
        "whole": {"dataset": "all"},
        "capped": {"dataset": "twice"},
        "uncapped": {"dataset": "twice", "trainset": {"cap": None}},
        "seeded": {"dataset": "twice", "trainset": {"cap": 7, "cap_seed": 5, "question": "Eh?"}},
    }
    world = make(tmp_path, records, trainset={"cap": 30}, recipes=recipes)
    twice = [record["id"] for record in records] * 2

    def ids(recipe):
        return [entry["id"] for entry in trained(world, recipe)[1]]

    assert ids("whole") == twice[:20], "not more than the cap: order untouched"
    random.seed(1024)
    assert ids("capped") == random.sample(twice, 30)
    assert ids("uncapped") == twice
    random.seed(5)
    assert ids("seeded") == random.sample(twice, 7)
    card, entries = trained(world, "seeded")
    assert (card["dropped_by_cap"], card["parameters"]["cap_seed"]) == (33, 5)
    left_out = read_table(world[1].trainset_dropped("seeded"))["id"].to_pylist()
    assert sorted([*left_out, *ids("seeded")]) == sorted(twice)
    assert entries[0]["conversations"][0]["value"] == "Eh?\n<image>"


def test_a_small_set_is_filled_up_to_the_cap(tmp_path):
    records = [pair(f"{number:02d}") for number in range(20)]
    recipes = {
        "whole": {"dataset": "all", "trainset": {"fill": True}},
        "twice": {"dataset": "twice", "trainset": {"fill": True, "cap": 40}},
        "larger": {"dataset": "twice", "trainset": {"fill": True, "cap": 30}},
        "unfilled": {"dataset": "twice", "trainset": {"cap": 30}},
    }
    world = make(tmp_path, records, trainset={"cap": 50}, recipes=recipes)
    card, entries = trained(world)
    ids = [entry["id"] for entry in entries]
    once = [record["id"] for record in records]
    assert (card["rows"], card["filled_up"], card["dropped_by_cap"]) == (50, 30, 0)
    assert ids[:40] == once * 2 and len(set(ids[40:])) == 10, "whole sets, and of the rest a part without repetition"
    assert world[1].trainset_dropped("whole").exists() and not read_table(world[1].trainset_dropped("whole")).num_rows
    assert "filled_up" not in trained(world, "twice")[0]
    assert trained(world, "larger")[1] == trained(world, "unfilled")[1], "more than the cap is the kit's to cut"


def test_no_recipe_trains_on_held_out_pairs_or_what_was_made_of_them(tmp_path):
    records = [pair(f"{number:02d}", f"caption {number}") for number in range(20)]
    datasets = DATASETS | {"held": {"from": "pool", "sample": {"rows": 5}}, "only": {"from": "held", "repeat": 2}}
    recipes = {"whole": {"dataset": "all"}, "capped": {"dataset": "twice", "trainset": {"cap": 20}}}
    recipes |= {"only": {"dataset": "only"}}
    world = make(tmp_path, records, datasets=datasets, recipes=recipes, held_out="held")
    layout = world[1]
    card = build_held_out(*world)
    entries = json.loads(layout.held_out.read_text(encoding="utf-8"))
    held = {entry["id"] for entry in entries}
    assert card == read_json(layout.held_out_card) and card["sha256"] == sha256_file(layout.held_out)
    assert card["rows"] == len(held) == 5 and held == set(read_table(layout.rows("held"))["id"].to_pylist())

    whole, entries = trained(world)
    assert (whole["held_out"], whole["rows"], whole["dropped_by_cap"]) == (5, 15, 0)
    assert not held & {entry["id"] for entry in entries} and whole["inputs"]["held"] == card["inputs"]["held"]
    capped, entries = trained(world, "capped")
    assert (capped["held_out"], capped["rows"], capped["dropped_by_cap"]) == (10, 20, 10), "before the cap"
    assert not held & {entry["id"] for entry in entries}
    with pytest.raises(PreflightError, match="`only` has only held-out pairs"):
        build_trainset("only", *world)

    some = [f"{next(iter(held))}~2", "x~1", f"{next(iter(held))}~3"]
    rows = pa.table([some, ["made", "made", "pool"]], ROWS)
    plan = SimpleNamespace(generators=["made"], makes_variants=lambda source: True)
    assert _without(rows, read_table(layout.rows("held")), plan)["id"].to_pylist() == some[1:], (
        "a ~ in a pool's id is none"
    )
    expected = Expected(*world).trainset
    assert expected("whole") == (15, Basis.MADE), "as the training file says"
    layout.trainset_card("whole").unlink()
    assert expected("whole").basis == Basis.AT_MOST


def test_redrawn_images_are_found_from_the_pools_folder(tmp_path):
    datasets = {"drawn": {"from": "pool", "redraw": {"redrawer": "sd"}}}
    configuration = configure_pairs(
        tmp_path / "data", {"one": [pair("a")]}, datasets=datasets, recipes={"whole": {"dataset": "drawn"}}
    )
    layout, plan = make_pool(configuration, tmp_path)
    write_image(layout.source_images("drawn") / "new.png", (7, 7))
    write_records(layout.records("drawn", "drawn-0000"), [Record("a", text_of("new"), ["new.png"], "drawn")])
    write_table(layout.failed("drawn", "drawn-0000"), FAILED.empty_table())
    build_dataset("drawn", configuration, layout, plan)
    _, entries = trained((configuration, layout, plan))
    assert entries[0]["image"] == "../results/sources/drawn/images/new.png"
    assert (tmp_path / "data" / entries[0]["image"]).is_file()


def test_the_preflight_names_every_record_that_could_not_be_trained_on(tmp_path):
    names = ["cut.jpg", "gone.png", "fine.png", "said.png"]
    for name in names:
        write_image(tmp_path / "images" / name, (64, 64))
    world = make(tmp_path, [pair(name, image=f"images/{name}") for name in names])
    layout = world[1]
    cut = tmp_path / "images" / "cut.jpg"
    cut.write_bytes(cut.read_bytes()[:-20])
    (tmp_path / "images" / "gone.png").unlink()
    shard = layout.records("pool", shard_name("one", "said.png", 3))
    records = [r._replace(text=text_of("an <eos>")) if r.id == "said.png" else r for r in read_records(shard)]
    write_records(shard, records)

    ImageFile.LOAD_TRUNCATED_IMAGES = True
    with pytest.raises(PreflightError) as caught:
        build_trainset("whole", *world)
    message = str(caught.value)
    assert "recipe `whole`: 3 findings in 4 rows" in message
    found = dict(re.findall(r"^  (\S+\.\w+): (image \w+|control string)", message, re.MULTILINE))
    assert found == {"cut.jpg": "image unreadable", "gone.png": "image missing", "said.png": "control string"}
    assert "run again" in message and "make run CONFIG=config/" in message and "trainset.unusable: drop" in message
    assert not layout.trainset("whole").exists()
    on_record = [json.loads(line) for line in layout.findings(layout.trainset("whole")).read_text().splitlines()]
    assert [(item["id"], item["key"]) for item in on_record] == [
        ("cut.jpg", "image"),
        ("gone.png", "image"),
        ("said.png", "text"),
    ]


def test_unusable_rows_are_dropped_on_record_up_to_a_share(tmp_path):
    write_image(tmp_path / "images" / "gone.png")
    records = [
        pair(str(number), image="images/gone.png" if number in (1, 3) else "images/one.png") for number in range(8)
    ]
    sections = {"recipes": {"whole": {"dataset": "twice"}}}
    world = make(tmp_path, records, trainset={"unusable": "drop", "unusable_share": 0.25}, **sections)
    (tmp_path / "images" / "gone.png").unlink()
    card = build_trainset("whole", *world)
    entries = json.loads(world[1].trainset("whole").read_text())
    assert [entry["id"] for entry in entries] == ["0", "2", "4", "5", "6", "7"] * 2
    assert (card["rows"], card["preflight"]["dropped"]) == (12, 4)
    assert card["preflight"]["findings"] == {"image missing": 2}
    record = world[1].findings(world[1].trainset("whole")).read_text().splitlines()
    assert [json.loads(line)["id"] for line in record] == ["1", "3"]

    (tmp_path / "less").mkdir()
    strict = make(
        tmp_path / "less", records[:2] + records[4:], trainset={"unusable": "drop"}, pool={"images": str(tmp_path)}
    )
    assert build_trainset("whole", *strict)["rows"] == 5, "quarantined at ingest"
    write_image(tmp_path / "images" / "gone.png")
    strict = make(tmp_path / "less", records, trainset={"unusable": "drop"}, pool={"images": str(tmp_path)})
    (tmp_path / "images" / "gone.png").unlink()
    with pytest.raises(PreflightError, match=r"2 of 8 rows are 25\.0%, more than trainset.unusable_share 0\.01"):
        build_trainset("whole", *strict)


def test_a_question_without_image_token_is_a_finding(tmp_path):
    entry = {**llava_pair("a", "x"), "conversations": [{"from": "human", "value": "What is it?"}]}
    (tmp_path / "stage_1.json").write_text(json.dumps([entry]))
    world = make(tmp_path, [pair("a")], pool={"restore": [str(tmp_path / "stage_1.json")]})
    with pytest.raises(PreflightError, match="a: question: not exactly one `<image>`"):
        build_trainset("whole", *world)


def test_a_question_with_a_token_of_the_models_is_a_finding(tmp_path):
    """Stage 1 would end at it."""
    (tmp_path / "stage_1.json").write_text(json.dumps([llava_pair("a", "x", question="What <eos> is it?")]))
    world = make(tmp_path, [pair("a")], pool={"restore": [str(tmp_path / "stage_1.json")]})
    with pytest.raises(PreflightError, match="a: question: `<eos>` in its question"):
        build_trainset("whole", *world)


def test_training_reads_the_same_picture_that_was_scored(tmp_path):
    world = make(tmp_path, [pair("a")])
    configuration, layout, _ = world
    _, entries = trained(world)
    image = ImageRoots(configuration.pool, layout).open("pool", entries[0]["image"])
    assert image.size == (24, 16)


def test_a_training_file_has_the_same_bytes_every_time(tmp_path):
    world = make(tmp_path, [pair(f"{number}") for number in range(30)], trainset={"cap": 10})
    trained(world)
    before = world[1].trainset("whole").read_bytes()
    trained(world)
    assert world[1].trainset("whole").read_bytes() == before


def test_what_ingest_decoded_is_decoded_again_only_when_its_times_are_others(tmp_path):
    write_image(tmp_path / "images" / "two.png")
    world = make(tmp_path, [pair("a"), pair("b", image="images/two.png")])
    assert trained(world)[0]["preflight"] == {"rows": 2, "images": 2, "decoded": 0, "failures": 0}
    os.utime(tmp_path / "images" / "two.png", (0, 0))
    assert trained(world)[0]["preflight"]["decoded"] == 1
    write_image(tmp_path / "images" / "two.png", size=(50, 40))
    with pytest.raises(PreflightError, match=r"b: image changed: .*two\.png: not the picture that was read"):
        trained(world)


def test_without_decoding_at_ingest_every_image_is_decoded(tmp_path):
    world = make(tmp_path, [pair("a"), pair("b")], pool={"decode": False})
    assert trained(world)[0]["preflight"]["decoded"] == 1

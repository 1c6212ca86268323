"""Generators with tiny models of the real classes: forms, determinism, resuming and failures."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tiny_diffusion
import tiny_models
import torch
from PIL import Image

from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, sha256_bytes, sha256_file
from bettersynth.core.records import END_OF_CHUNK, IMAGE_TOKEN, Record, caption_of, read_records, text_of, write_records
from bettersynth.core.resources import staged
from bettersynth.core.tables import read_table, write_table
from bettersynth.datasets.build import build_dataset
from bettersynth.pool.ingest import INDEX
from bettersynth.pool.llava import Questions
from bettersynth.runtime.devices import DoesNotFitError
from bettersynth.sources.base import GeneratorError
from bettersynth.sources.captioners.families import Family
from bettersynth.sources.captioners.recaptioner import Recaptioner
from bettersynth.sources.captioners.slots import Slots
from bettersynth.sources.cleaning import caption_words
from bettersynth.sources.make import make_source_shard
from bettersynth.workflow.plan import Plan

SCRIPTS = Path(__file__).parents[2] / "scripts"
CAPTIONERS = {
    "blip2": {"model": "blip2", "max_new_tokens": 8, "batch": 4},
    "blip2_prompted": {"model": "blip2", "max_new_tokens": 8, "prompt": "a photo of", "sampling": False},
    "blip2_greedy": {"model": "blip2", "max_new_tokens": 8, "sampling": False, "batch": 5},
    "blip2_three": {"model": "blip2", "max_new_tokens": 8, "candidates": 3, "keep": "similar_one_simhash"},
    "blip2_all": {"model": "blip2", "max_new_tokens": 8, "candidates": 3, "keep": "all"},
    "blip2_longest": {"model": "blip2", "max_new_tokens": 8, "candidates": 3, "keep": {"best_by": "text_length"}},
    "blip2_short": {"model": "blip2", "max_new_tokens": 8, "candidates": 3, "min_words": 3, "max_words": 3},
    "llava": {"model": "llava", "max_new_tokens": 8, "prompt": "the picture", "batch": 4},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of the tiny models."""
    root = tmp_path_factory.mktemp("models")
    return {
        "blip2": tiny_models.blip2(root / "blip2"),
        "llava": tiny_models.llava(root / "llava"),
        "diffusion": tiny_diffusion.stable_diffusion(root / "diffusion"),
        "language": staged("lid_176"),
    }


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twelve pictures; the last is cut short."""
    folder = tmp_path_factory.mktemp("pictures")
    chance = np.random.default_rng(1)
    for number in range(12):
        blocks = chance.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((48 + number, 40), Image.Resampling.BILINEAR).save(folder / f"{number:02}.png")
    whole = (folder / "11.png").read_bytes()
    (folder / "11.png").write_bytes(whole[: len(whole) // 2])
    return folder


class World:
    """A run's results folder with a pool of pictures and datasets over it."""

    def __init__(self, root, models, pictures, datasets, captioners=None):
        self.configuration = Configuration.model_validate(
            {
                "pool": {"files": [{"path": "raw.jsonl", "name": "f"}], "images": str(pictures)},
                "models": {name: {"path": str(path)} for name, path in models.items()},
                "operators": {
                    "text_length": {"op": "text_length_filter"},
                    "language": {"op": "language_id_score_filter", "model": "language"},
                },
                "captioners": captioners or CAPTIONERS,
                "redrawers": {"tiny": {"model": "diffusion", "steps": 3, "size": tiny_models.SIDE}},
                "datasets": datasets,
            }
        )
        self.layout = Layout(root)
        self.plan = Plan(self.configuration)

    def pool(self, names, caption="a man riding a red horse"):
        """Give the pool these pictures, in this order."""
        records = [Record(f"id {name}", text_of(caption), [f"{name}.png"]) for name in names]
        write_records(self.layout.records("pool", "f-0000"), sorted(records))
        columns = [[record.id for record in records], ["f-0000"] * len(records)]
        write_table(self.layout.index, pa.table(columns, INDEX))
        return self

    def make(self, source):
        """Make all shards of the source; returns its records by id."""
        for shard in self.plan.shards(source):
            make_source_shard(source, shard, self.configuration, self.layout, self.plan)
        return {record.id: record for shard in self.plan.shards(source) for record in self.records(source, shard)}

    def records(self, source, shard):
        return list(read_records(self.layout.records(source, shard)))

    def card(self, source):
        return read_json(self.layout.records_card(source, f"{source}-0000"))

    def failed(self, source):
        return read_table(self.layout.failed(source, f"{source}-0000")).to_pylist()


@pytest.fixture
def world(tmp_path, models, pictures):
    """Makes worlds whose datasets are `{name: verb}`, all over the pool."""
    counter = iter(range(100))

    def make(**verbs):
        datasets = {name: {"from": "pool", **verb} for name, verb in verbs.items()}
        return World(tmp_path / str(next(counter)), models, pictures, datasets)

    return make


def recaption(captioner, seed=0, shards=1):
    return {"recaption": {"captioner": captioner, "seed": seed, "shards": shards}}


TEN = [f"{number:02}" for number in range(10)]


@pytest.mark.parametrize("captioner", ["blip2", "llava", "blip2_three"])
def test_a_caption_depends_on_the_record_only(world, models, pictures, captioner):
    together = world(new=recaption(captioner)).pool(TEN).make("new")
    reordered = world(new=recaption(captioner, shards=3)).pool(TEN[::-1]).make("new")
    alone = {}
    for name in TEN[2:5]:
        alone |= world(new=recaption(captioner)).pool([name]).make("new")

    assert together == reordered
    assert len({record.text for record in together.values()}) > 5
    assert alone == {key: together[key] for key in alone}
    assert alone


def test_another_seed_gives_other_captions(world):
    texts = [
        {key: record.text for key, record in world(new=recaption("blip2", seed)).pool(TEN).make("new").items()}
        for seed in (0, 1)
    ]

    assert texts[0] != texts[1]


def test_all_candidates_make_records_of_their_own(world):
    place = world(new=recaption("blip2_all", seed=2)).pool(["00", "01", "11"])
    new = place.make("new")
    card = build_dataset("new", place.configuration, place.layout, place.plan)
    rows = read_table(place.layout.rows("new")).to_pylist()

    assert [row["id"] for row in rows] == [f"id {name}~{number}" for name in ("00", "01") for number in (1, 2, 3)]
    assert {row["source"] for row in rows} == {"new"}
    assert len({record.text for record in new.values()}) == 6
    assert {(key[:5], tuple(record.images)) for key, record in new.items()} == {
        ("id 00", ("00.png",)),
        ("id 01", ("01.png",)),
    }
    assert card["ledger"] == {"in": 3, "added": 4, "out": 6, "changed": 2, "dropped": {"image unreadable": 1}}


@pytest.mark.parametrize("captioner", ["blip2", "blip2_all"])
def test_originals_can_stay_beside_the_new_ones(world, captioner):
    place = world(new={"recaption": {"captioner": captioner, "keep_original": True, "seed": 2}}).pool(
        ["01", "11", "00"]
    )
    place.make("new")
    card = build_dataset("new", place.configuration, place.layout, place.plan)
    rows = [tuple(row.values()) for row in read_table(place.layout.rows("new")).to_pylist()]
    copies = [1] if captioner == "blip2" else [1, 2, 3]

    expected = []
    for name in ("01", "11", "00"):
        expected.append((f"id {name}", "pool"))
        expected += [(f"id {name}~{number}", "new") for number in copies if name != "11"]
    assert rows == expected
    assert place.plan.sources("new") == ("pool", "new")
    added = 2 * len(copies)
    assert card["ledger"] == {"in": 3, "added": added, "out": 3 + added, "changed": 0, "dropped": {}}


def test_new_records_are_asked_their_originals_question(world, tmp_path):
    restore = tmp_path / "stage_1.json"
    restore.write_text(json.dumps([{"id": "id 00", "conversations": [{"value": "What is it?\n<image>"}]}]))
    place = world(new=recaption("blip2_all", seed=2)).pool(["00"])
    pool = place.configuration.pool.model_copy(update={"restore": [str(restore)]})
    configuration = place.configuration.model_copy(update={"pool": pool})
    questions = Questions(configuration, "unused", [*place.make("new"), "id 00~3~1"])

    assert questions["id 00~3~1"] == questions["id 00~3"] == questions["id 00"] == "What is it?\n<image>"


def test_the_best_candidate_by_a_score_stays(world):
    together = world(new=recaption("blip2_all", seed=2)).pool(TEN[:3]).make("new")
    longest = world(new=recaption("blip2_longest", seed=2)).pool(TEN[:3]).make("new")

    for key, record in longest.items():
        texts = [together[f"{key}~{number}"].text for number in (1, 2, 3)]
        assert record.text == max(texts, key=len)
    assert len(longest) == 3


def test_candidates_of_another_length_are_not_kept(world):
    every = world(new=recaption("blip2_all", seed=2)).pool(TEN).make("new")
    words = {key: len(caption_words(caption_of(record.text))) for key, record in every.items()}
    place = world(new=recaption("blip2_short", seed=2)).pool(TEN)
    short = place.make("new")

    right = {key.partition("~")[0] for key, count in words.items() if count == 3}
    assert set(short) == right
    assert 0 < len(right) < 10
    assert all(len(caption_words(caption_of(record.text))) == 3 for record in short.values())
    assert {row["reason"] for row in place.failed("new")} <= {"too few words", "too many words"}


@pytest.mark.parametrize("captioner", ["blip2", "llava"])
def test_a_recaption_keeps_id_and_image_and_takes_data_juicers_form(world, captioner):
    new = world(new=recaption(captioner)).pool(TEN).make("new")

    assert new
    for record in new.values():
        assert (record.images, record.image_root) == ([f"{record.id[3:]}.png"], "pool")
        assert record.text.startswith(f"{IMAGE_TOKEN} ")
        assert record.text.endswith(f" {END_OF_CHUNK}")
        assert "USER" not in record.text


# --- resuming -------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from bettersynth.sources import make as generators
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.workflow.plan import Plan

configuration = Configuration.model_validate_json(open(sys.argv[1]).read())
append, calls = generators.Journal.append, []
def killed(self, entries):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, entries)
generators.Journal.append = killed
generators.make_source_shard("new", "new-0000", configuration, Layout(sys.argv[2]), Plan(configuration))
"""


def _wait_until_nobody_is_in_the_group(group):
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    raise AssertionError("a process that reads images outlives the job")


def test_a_killed_shard_goes_on_to_the_same_bytes(world, tmp_path):
    whole = world(new=recaption("blip2")).pool(TEN)
    whole.make("new")
    broken = world(new=recaption("blip2")).pool(TEN)
    settings = tmp_path / "configuration.json"
    settings.write_text(broken.configuration.model_dump_json(by_alias=True))
    command = [sys.executable, "-c", KILLED, str(settings), str(broken.layout.root)]
    job = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(SCRIPTS)}, start_new_session=True)
    assert job.wait() == -signal.SIGKILL
    _wait_until_nobody_is_in_the_group(job.pid)

    journal = broken.layout.work("new", "new-0000")
    assert len(journal.read_text().splitlines()) == 8
    assert not broken.layout.records("new", "new-0000").exists()
    with journal.open("a") as file:
        file.write('{"key": "torn')
    broken.make("new")

    assert broken.card("new")["reused"] == 8
    for path in (Layout.records, Layout.failed):
        assert sha256_file(path(broken.layout, "new", "new-0000")) == sha256_file(path(whole.layout, "new", "new-0000"))


def test_other_rows_reuse_what_is_done(world):
    place = world(new=recaption("blip2")).pool(TEN[:6])
    place.make("new")
    place.pool(TEN[3:9]).make("new")

    assert (place.card("new")["asked"], place.card("new")["reused"]) == (6, 3)


def test_another_seed_or_caption_reuses_nothing(world, models, pictures):
    place = world(new=recaption("blip2")).pool(TEN[:4])
    place.make("new")
    datasets = {"new": {"from": "pool", **recaption("blip2", seed=5)}}
    again = World(place.layout.root, models, pictures, datasets)
    again.make("new")
    assert again.card("new")["reused"] == 0
    again.pool(TEN[:4], caption="another caption").make("new")
    assert again.card("new")["reused"] == 0


def test_batch_size_is_no_reason_to_caption_again(world, models, pictures):
    place = world(new=recaption("blip2")).pool(TEN[:4])
    place.make("new")
    captioners = {"blip2": {**CAPTIONERS["blip2"], "batch": 1}}
    again = World(place.layout.root, models, pictures, {"new": {"from": "pool", **recaption("blip2")}}, captioners)
    again.make("new")

    assert again.card("new")["reused"] == 4


# --- failures -------------------------------------------------------------------------------------


def test_damaged_image_fails_with_its_reason_and_is_tried_again(world):
    place = world(new=recaption("llava")).pool(["00", "11"])

    assert list(place.make("new")) == ["id 00"]
    assert place.failed("new") == [{"id": "id 11", "source": "pool", "reason": "image unreadable"}]
    place.make("new")
    assert place.card("new")["reused"] == 1
    assert place.card("new")["failed"] == {"image unreadable": 1}


def test_missing_image_stops_and_names_the_record(world):
    with pytest.raises(GeneratorError, match="record id 77: image missing"):
        world(new=recaption("blip2")).pool(["00", "77"]).make("new")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("", "empty caption"), ("I'm sorry, I cannot see it", "refusal"), ("a dog <eos>", "control string")],
)
def test_bad_answers_fail_with_a_reason(world, monkeypatch, answer, reason):
    monkeypatch.setattr(Family, "caption", lambda self, tokens: answer)
    place = world(new=recaption("blip2")).pool(["00"])

    assert place.make("new") == {}
    assert place.failed("new") == [{"id": "id 00", "source": "pool", "reason": reason}]
    assert (place.card("new")["asked"], place.card("new")["made"]) == (1, 0)


def test_out_of_memory_halves_the_batch(world, monkeypatch, caplog):
    whole = world(new=recaption("blip2")).pool(TEN).make("new")
    init = Slots.__init__

    def small_gpu(self, *arguments, rows, **options):
        if rows > 1:
            raise torch.OutOfMemoryError
        init(self, *arguments, rows=rows, **options)

    monkeypatch.setattr(Slots, "__init__", small_gpu)
    assert world(new=recaption("blip2")).pool(TEN).make("new") == whole
    assert "out of GPU memory with 4 images: going on with 2" in caplog.text
    assert "out of GPU memory with 2 images: going on with 1" in caplog.text


def test_one_record_that_does_not_fit_is_named(world, monkeypatch):
    def no_gpu(self, *arguments, **options):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Slots, "__init__", no_gpu)
    with pytest.raises(DoesNotFitError, match="record id 00: one image does not fit into the GPU's memory"):
        world(new=recaption("blip2")).pool(TEN).make("new")


def test_every_row_is_made_or_dropped(world):
    place = world(new=recaption("blip2")).pool([*TEN, "11"])
    made = place.make("new")
    card = build_dataset("new", place.configuration, place.layout, place.plan)

    assert card["ledger"]["in"] == 11
    assert card["ledger"]["out"] == len(made) == place.card("new")["made"]
    assert card["ledger"]["dropped"] == place.card("new")["failed"]


# --- redraw and clean -----------------------------------------------------------------------------

REDRAW = {"redraw": {"redrawer": "tiny", "seed": 4}}


def test_redrawn_images_are_named_by_their_bytes(world, pictures):
    place = world(new=REDRAW).pool(TEN[:3])
    new = place.make("new")

    assert len(new) == 3
    for key, record in new.items():
        assert record.image_root == "new"
        assert record.text == text_of("a man riding a red horse")
        path = place.layout.source_images("new") / record.images[0]
        assert path.name == f"{sha256_bytes(path.read_bytes())}.png"
        assert path.parent.name == path.name[:2]
        assert Image.open(path).size == Image.open(pictures / f"{key[3:]}.png").size
    assert len({record.images[0] for record in new.values()}) == 3


def test_a_drawing_depends_on_the_record_only_and_a_lost_one_comes_back(world):
    place = world(new=REDRAW).pool(TEN[:3])
    first = place.make("new")
    assert world(new=REDRAW).pool(TEN[2:0:-1]).make("new").items() <= first.items()

    lost = place.layout.source_images("new") / first["id 01"].images[0]
    lost.unlink()
    assert place.make("new") == first
    assert lost.exists()
    assert place.card("new")["reused"] == 2


def test_redrawn_images_can_be_captioned(tmp_path, models, pictures):
    datasets = {"drawn": {"from": "pool", **REDRAW}, "told": {"from": "drawn", **recaption("llava")}}
    place = World(tmp_path, models, pictures, datasets).pool(TEN[:2])
    drawn = place.make("drawn")
    build_dataset("drawn", place.configuration, place.layout, place.plan)

    for key, record in place.make("told").items():
        assert record.images == drawn[key].images
        assert record.image_root == "drawn"


def test_clean_repairs_drops_and_leaves_the_rest(world):
    place = world(new={"clean": {"min_words": 3}}).pool(["00"])
    texts = {"a": text_of("a red cat, stock photo"), "b": "<__dj__image> a red cat <|__dj__eoc|>", "c": text_of("cats")}
    write_records(
        place.layout.records("pool", "f-0000"), [Record(key, text, ["00.png"]) for key, text in texts.items()]
    )
    write_table(place.layout.index, pa.table([list(texts), ["f-0000"] * 3], INDEX))
    new = place.make("new")

    assert {key: record.text for key, record in new.items()} == {"a": text_of("a red cat"), "b": texts["b"]}
    assert place.failed("new") == [{"id": "c", "source": "pool", "reason": "too few words"}]
    card = build_dataset("new", place.configuration, place.layout, place.plan)
    assert card["ledger"] == {"in": 3, "added": 0, "out": 2, "changed": 1, "dropped": {"too few words": 1}}


def test_clean_counts_repairs_and_drops_other_languages(world):
    language = {"operator": "language", "one_of": ["en"], "min": 0.3}
    place = world(new={"clean": {"language": language}}).pool(["00"])
    texts = {
        "a": "a small red cat is sitting on the old wooden table",
        "b": "eine kleine rote Katze sitzt auf dem alten Holztisch",
        "c": "a small small red cat is sitting on the table, stock photo",
        "d": "",
    }
    records = [Record(key, text_of(caption), ["00.png"]) for key, caption in texts.items()]
    write_records(place.layout.records("pool", "f-0000"), records)
    write_table(place.layout.index, pa.table([list(texts), ["f-0000"] * 4], INDEX))

    assert list(place.make("new")) == ["a", "c"]
    assert {row["id"]: row["reason"] for row in place.failed("new")} == {"b": "another language", "d": "empty caption"}
    assert place.card("new")["repaired"] == {"repetition": 1, "tail": 1}
    assert list(read_records(place.layout.records("pool", "f-0000")))[2].text == text_of(texts["c"])


def test_models_are_opened_only_when_there_is_work(world, monkeypatch):
    place = world(new=recaption("blip2")).pool(TEN[:4])
    place.make("new")
    monkeypatch.setattr(Recaptioner, "family", None)

    place.make("new")
    assert place.card("new")["reused"] == 4

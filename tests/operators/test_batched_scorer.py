"""A pass: one reading of each image for several operators, in worker processes, in batches that fit."""

from __future__ import annotations

import json
import logging
import random
from importlib import import_module
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageFile

from bettersynth.configuration.pool import Model, Operator, Reading, Scoring
from bettersynth.core.records import Record, text_of
from bettersynth.core.resources import staged
from bettersynth.operators.batched.errors import RecordError
from bettersynth.operators.batched.resize import resize

REPOSITORY = Path(__file__).parents[2]
OPERATORS = ("image_text_similarity_filter", "image_nsfw_filter", "image_aesthetics_filter")


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    """Data-Juicer and transformers work from local files only."""
    from bettersynth.runtime import patches

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        patches.prepare(tmp_path_factory.mktemp("cache"), 100_000_000)
        yield


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Loads a scorer of these operators with tiny models; keyword arguments are keys of `scoring`."""
    import tiny_models

    root = tmp_path_factory.mktemp("models")
    models = {
        "image_text_similarity_filter": tiny_models.clip(root / "clip"),
        "image_nsfw_filter": tiny_models.classifier(root / "nsfw", seed=14),
        "image_aesthetics_filter": tiny_models.aesthetics(root / "aesthetics-predictor-v2-linear"),
        "text_action_filter": staged("spacy_en"),
    }

    def loaded(*names, **settings):
        from bettersynth.operators.batched.scorer import BatchScorer

        operators = {
            name: (Operator(op=name), Model(path=str(models[name])) if name in models else None) for name in names
        }
        device = settings.pop("device", "cpu")
        return BatchScorer.load(operators, reading=Reading(10**6), settings=Scoring(**settings), device=device)

    return loaded


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Forty pictures of noise, the last one cut short."""
    folder = tmp_path_factory.mktemp("images")
    chance = random.Random(2)
    for number in range(40):
        size = (32 + number, 40)
        Image.frombytes("RGB", size, chance.randbytes(3 * size[0] * size[1])).save(folder / f"{number}.jpg")
    cut = folder / "39.jpg"
    cut.write_bytes(cut.read_bytes()[:1200])
    return folder


@pytest.fixture(scope="module")
def records():
    """A pair for each picture."""
    return [Record(f"r{number}", text_of(f"a dog and {number} cats"), [f"{number}.jpg"]) for number in range(40)]


class Folder:
    """Finds images below one folder."""

    def __init__(self, folder):
        self._folder = folder

    def path(self, image_root, relative):
        return self._folder / relative


def test_worker_processes_change_nothing(load, images, records):
    names = (*OPERATORS, "words_num_filter", "image_shape_filter", "image_hash")
    inline = load(*names, workers=0).score(records, Folder(images))
    in_workers = load(*names, workers=2).score(records, Folder(images))

    for name in names:
        assert str(in_workers[name].stats) == str(inline[name].stats), name


def test_resizing_on_the_device_changes_nothing(load, images, records, monkeypatch):
    records = [*records, Record("two", text_of("a dog") + text_of("a cat"), ["3.jpg", "4.jpg"])]
    here = load(*OPERATORS).score(records, Folder(images))
    scorer = load(*OPERATORS)
    scorer._device_resizes = True  # as on a GPU
    together: list[int] = []
    module = import_module("bettersynth.operators.batched.scorer")  # not before `runtime.patches.prepare`
    monkeypatch.setattr(module, "resize", lambda *some: together.append(len(some[1])) or resize(*some))
    there = scorer.score(records, Folder(images))
    assert max(together) > module.PIECE
    monkeypatch.setattr("bettersynth.operators.batched.preparing.MOST_PIXELS", 40_000)  # too many in the first piece
    some_there = scorer.score(records, Folder(images))

    cat = torch.cat

    def no_memory_for_buffers(tensors, *rest, **options):
        if tensors[0].dtype == torch.uint8 and tensors[0].ndim == 2:
            raise torch.OutOfMemoryError
        return cat(tensors, *rest, **options)

    monkeypatch.setattr(torch, "cat", no_memory_for_buffers)
    one_by_one = scorer.score(records, Folder(images))

    for name in OPERATORS:
        expected = str(here[name].stats)
        assert str(there[name].stats) == str(some_there[name].stats) == str(one_by_one[name].stats) == expected, name


def test_each_image_is_decoded_once_for_all_operators(load, images, records, monkeypatch):
    from bettersynth.operators.batched import preparing

    opened = []
    original = preparing.open_pixels
    monkeypatch.setattr(preparing, "open_pixels", lambda path, most: opened.append(path) or original(path, most))
    load(*OPERATORS, "image_shape_filter", "image_hash").score(records[:5], Folder(images))

    assert len(opened) == 5


def test_damaged_image_has_no_value_and_is_named(load, images, records):
    scores = load("image_nsfw_filter", "image_shape_filter", "image_size_filter", "words_num_filter").score(
        records, Folder(images)
    )

    assert scores["image_nsfw_filter"].stats[39] == {"image_nsfw_score": None}
    assert scores["image_shape_filter"].stats[39] == {"image_width": None, "image_height": None}
    assert "truncated" in scores["image_nsfw_filter"].unreadable["r39"]
    assert scores["image_size_filter"].stats[39] == {"image_sizes": [1200]}
    assert scores["words_num_filter"].stats[39]["num_words"] > 3
    assert not scores["words_num_filter"].unreadable
    assert all(entry["image_nsfw_score"] for entry in scores["image_nsfw_filter"].stats[:39])


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (Record("lost", text_of("a dog"), ["nowhere.jpg"]), "no such file"),
        (Record("vast", text_of("a dog"), ["vast.png"]), "image too large"),
    ],
)
def test_any_other_problem_stops_and_names_the_record(load, images, records, record, reason):
    Image.new("1", (2000, 2000)).save(images / "vast.png")
    with pytest.raises(RecordError, match=rf"image_text_similarity_filter cannot score record {record.id}: .*{reason}"):
        load("image_text_similarity_filter").score([*records[:3], record], Folder(images))


def test_a_record_that_an_operator_cannot_score_has_no_value_and_is_named(load, images, records):
    """spaCy takes a million characters; a text with an image token too many is none that ingest takes."""
    long = Record("long", text_of("a dog runs " * 100_000), ["1.jpg"])
    short = Record("short", text_of("a dog") + text_of("a cat"), ["1.jpg"])
    names = ("text_action_filter", "image_text_similarity_filter", "words_num_filter")
    scores = load(*names).score([*records[:3], long, short, *records[3:6]], Folder(images))
    alone = load(*names).score(records[:6], Folder(images))

    verbs, pairs, words = (scores[name] for name in names)
    assert verbs.stats[3] == {"num_action": None} and "Text of length" in verbs.failed["long"]
    assert pairs.stats[4] == {"image_text_similarity": None} and "no image is left" in pairs.failed["short"]
    assert words.stats[3]["num_words"] > 100_000 and not words.failed
    assert list(verbs.failed) == ["long"] and list(pairs.failed) == ["short"]
    for name in names:
        whole = scores[name].stats[:3] + scores[name].stats[5:]
        for ours, theirs in zip(whole, alone[name].stats, strict=True):
            assert all(ours[key] == pytest.approx(theirs[key], abs=1e-6) for key in theirs), name


def test_a_time_limit_is_the_records_fault_and_a_broken_operator_is_not(load, images, records, monkeypatch):
    scorer = load("image_text_similarity_filter")
    [lane] = scorer._lanes.values()
    encode = lane.kind.encode

    def limited(texts):
        if any("and 2 cats" in text for text in texts):
            raise TimeoutError("match abandoned after 5 s")
        return encode(texts)

    monkeypatch.setattr(lane.kind, "encode", limited)
    scores = scorer.score(records[:5], Folder(images))["image_text_similarity_filter"]
    assert scores.failed == {"r2": "TimeoutError: match abandoned after 5 s"}
    assert [entry["image_text_similarity"] is None for entry in scores.stats] == [False, False, True, False, False]

    def broken(texts):
        raise RuntimeError("no tokenizer")

    monkeypatch.setattr(lane.kind, "encode", broken)
    with pytest.raises(RecordError, match="cannot score record r0: RuntimeError: no tokenizer"):
        scorer.score(records[:5], Folder(images))


def test_large_pictures_are_let_go_one_by_one(load, images, records, monkeypatch):
    from bettersynth.operators.batched import preparing

    names = (*OPERATORS, "image_shape_filter", "image_hash")
    whole = load(*names).score(records, Folder(images))
    held = []
    add = preparing.Pictures.add

    def watched(self, position, pictures):
        add(self, position, pictures)
        held.append(self.area)

    monkeypatch.setattr(preparing.Pictures, "add", watched)
    monkeypatch.setattr(preparing, "MOST_PIXELS", 5_000)
    for device_resizes in (False, True):
        scorer = load(*names)
        scorer._device_resizes = device_resizes
        scores = scorer.score(records, Folder(images))
        for name in names:
            for ours, theirs in zip(scores[name].stats, whole[name].stats, strict=True):
                for key, values in theirs.items():
                    assert ours[key] == (pytest.approx(values, abs=1e-6) if name in OPERATORS and values else values)
    assert max(held) < 10_000


def test_shards_keep_their_scores_in_any_company(load, images, records):
    scorer = load(*OPERATORS)
    shards = [("a", records[:7], OPERATORS), ("b", records[7:30], OPERATORS[:1]), ("c", [], OPERATORS)]
    scored = dict(scorer.score_shards(shards, Folder(images), 30))
    alone = scorer.score(records[:7], Folder(images))

    assert list(scored) == ["a", "b", "c"]
    assert {name: str(scores.stats) for name, scores in scored["a"].items()} == {
        name: str(scores.stats) for name, scores in alone.items()
    }
    assert list(scored["b"]) == ["image_text_similarity_filter"]
    assert [scores.stats for scores in scored["c"].values()] == [[], [], []]


def test_a_problem_in_a_later_shard_leaves_those_before_it(load, images, records, monkeypatch):
    scorer = load("image_nsfw_filter")
    monkeypatch.setattr(scorer, "_computed", lambda shard: False)  # as on a GPU that is behind
    gone = Record("gone", text_of("a dog"), ["nowhere.jpg"])
    shards = [("a", records[:7], scorer.operators), ("b", [gone], scorer.operators)]
    scored = []
    with pytest.raises(RecordError, match="cannot score record gone"):
        scored.extend(scorer.score_shards(shards, Folder(images), 8))
    assert [key for key, _ in scored] == ["a"]


def test_a_problem_that_shows_late_is_not_taken_for_a_later_shard_s(load, images, records, monkeypatch):
    scorer = load("image_nsfw_filter")
    take = scorer._take

    def late(prepared, shard):
        if shard.key == "c":  # when a batch of the one before it comes back from a GPU
            raise RecordError("image_nsfw_filter", records[5].id, "no finite score", "b")
        take(prepared, shard)

    monkeypatch.setattr(scorer, "_computed", lambda shard: False)
    monkeypatch.setattr(scorer, "_take", late)
    shards = [(key, records[at : at + 4], scorer.operators) for key, at in (("a", 0), ("b", 4), ("c", 8))]
    scored = []
    with pytest.raises(RecordError, match="cannot score record r5: no finite score"):
        scored.extend(scorer.score_shards(shards, Folder(images), 12))
    assert [key for key, _ in scored] == ["a"]


def test_batches_are_halved_when_memory_runs_out(load, images, records, monkeypatch, caplog):
    name = "image_nsfw_filter"
    reference = load(name).score(records, Folder(images))[name]
    scorer = load(name)
    [lane] = scorer._lanes.values()
    forward = lane.kind.forward

    def small_memory(pixels, texts):
        if len(pixels) > 5:
            raise torch.OutOfMemoryError("tried to allocate")
        return forward(pixels, texts)

    monkeypatch.setattr(lane.kind, "forward", small_memory)
    with caplog.at_level(logging.WARNING):
        scores = scorer.score(records, Folder(images))[name]

    assert scores.batch == 4
    assert "out of memory with 8 images at a time; going on with 4" in caplog.text
    for ours, theirs in zip(scores.stats[:39], reference.stats[:39], strict=True):
        assert ours["image_nsfw_score"] == pytest.approx(theirs["image_nsfw_score"], abs=1e-6)


def test_out_of_memory_with_one_image_names_the_record(load, images, records, monkeypatch):
    scorer = load("image_nsfw_filter", batch=2)
    [lane] = scorer._lanes.values()

    def no_memory(pixels, texts):
        raise torch.OutOfMemoryError("tried to allocate")

    monkeypatch.setattr(lane.kind, "forward", no_memory)
    with pytest.raises(RecordError, match="image_nsfw_filter cannot score record r0: cpu has no memory for one image"):
        scorer.score(records[:5], Folder(images))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_close(load, images, records, precision):
    full = load(*OPERATORS).score(records[:20], Folder(images))
    half = load(*OPERATORS, precision=precision).score(records[:20], Folder(images))

    for name in OPERATORS:
        assert half[name].precision == precision
        for ours, theirs in zip(half[name].stats, full[name].stats, strict=True):
            for key, values in theirs.items():
                assert ours[key] == pytest.approx(values, abs=8e-3 if precision == "bf16" else 1e-3)
        assert str(half[name].stats) != str(full[name].stats)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("auto", 1e-3)])
def test_a_gpu_agrees_with_the_cpu(load, images, records, precision, tolerance):
    here = load(*OPERATORS).score(records, Folder(images))
    there = load(*OPERATORS, device="cuda", precision=precision, workers=2).score(records, Folder(images))

    for name in OPERATORS:
        assert there[name].device == torch.cuda.get_device_name()
        for ours, theirs in zip(there[name].stats[:39], here[name].stats[:39], strict=True):
            for key, values in theirs.items():
                assert ours[key] == pytest.approx(values, abs=tolerance)


def test_a_score_that_is_not_finite_is_refused(load, images, records, monkeypatch):
    scorer = load("image_nsfw_filter", precision="bf16")
    [lane] = scorer._lanes.values()
    monkeypatch.setattr(lane.kind, "forward", lambda pixels, texts: torch.full((len(pixels),), float("nan")))
    with pytest.raises(RecordError, match=r"record r0: no finite score in torch.bfloat16; set .*precision: fp32"):
        scorer.score(records[:3], Folder(images))


def test_other_image_processors_are_refused(load, tmp_path):
    import tiny_models
    from transformers import ConvNextImageProcessor

    from bettersynth.operators.batched.scorer import BatchScorer

    folder = tiny_models.classifier(tmp_path / "classifier", seed=1)
    ConvNextImageProcessor(size={"shortest_edge": 32}).save_pretrained(folder)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    assert settings["image_processor_type"] == "ConvNextImageProcessor"
    with pytest.raises(ValueError, match=r"ConvNextImageProcessor is not supported; .* ViTImageProcessor"):
        BatchScorer.load(
            {"nsfw": (Operator(op="image_nsfw_filter"), Model(path=str(folder)))},
            reading=Reading(10**6),
            settings=Scoring(),
            device="cpu",
        )


def test_the_batched_form_fills_in_a_stock_filters_stats(load, images, records, tmp_path):
    import tiny_models
    from data_juicer.utils.constant import Fields

    from bettersynth.operators.batched.stand_in import Batches
    from bettersynth.operators.data_juicer import build

    name = "image_nsfw_filter"
    expected = load(name).score(records[:3], Folder(images))[name].stats
    model = Model(path=str(tiny_models.classifier(tmp_path / "nsfw", seed=14)))
    samples = {
        "text": [record.text for record in records[:3]] + ["", ""],
        "images": [[str(images / record.images[0])] for record in records[:3]] + [[], [str(images / "gone.jpg")]],
        Fields.stats: [{}, {"image_nsfw_score": [0.5]}, {}, {}, {}],
    }
    left = Batches(name, build(Operator(op=name), model, "cpu"), None).fill_in(samples)

    assert list(left) == [4] and "gone.jpg" in left[4]
    assert [stats.get("image_nsfw_score") for stats in samples[Fields.stats]] == [
        expected[0]["image_nsfw_score"],
        [0.5],
        pytest.approx(expected[2]["image_nsfw_score"]),
        [],
        None,
    ]


def test_other_operators_of_the_process_read_pictures_as_before(load, images, records, tmp_path):
    from bettersynth.operators.batched.stand_in import _as_it_was

    ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = True, 123_456_789
    try:
        with _as_it_was():
            load("image_nsfw_filter").score(records[:1], Folder(images))
        assert (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS) == (True, 123_456_789)
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def test_threads_prepare_as_worker_processes_do(load, images, records):
    scorer = load("image_nsfw_filter")
    expected = scorer.score(records, Folder(images))["image_nsfw_filter"].stats
    scorer._threads = 3
    assert scorer.score(records, Folder(images))["image_nsfw_filter"].stats == expected

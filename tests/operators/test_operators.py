"""Our score shards against Data-Juicer's own executor, with the same records and models."""

import functools
import importlib
import inspect
import itertools
import math
import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image, ImageDraw
from stock_data_juicer import executor_stats

from bettersynth.configuration import ConfigurationError, configure
from bettersynth.configuration import stock as stock_filters
from bettersynth.configuration.operators import UnknownOperatorError, catalogue, operator_spec
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, sha256_file, write_json
from bettersynth.core.records import Record, text_of, write_records
from bettersynth.core.resources import resource
from bettersynth.core.tables import read_table
from bettersynth.operators.own.image_ssim import ssim
from bettersynth.workflow.passes import Chunk, chunk_name

SHARD = "f-0000"
REPOSITORY = Path(__file__).parents[2]
WIDE = {"min_score": -1e9, "max_score": 1e9}
# Operator -> (model, parameters that change the score, keep range that lets every record through).
CASES = {
    "image_text_similarity_filter": ("clip", {"horizontal_flip": True, "reduce_mode": "max"}, WIDE),
    "image_text_matching_filter": ("blip_itm", {}, WIDE),
    "image_aesthetics_filter": ("aesthetics", {}, WIDE),
    "image_watermark_filter": ("watermark", {}, {"prob_threshold": 1.0}),
    "image_nsfw_filter": ("nsfw", {}, WIDE),
    "phrase_grounding_recall_filter": ("owlvit", {"iou_thr": 0.8}, {"min_recall": 0.0, "max_recall": 1.0}),
    "words_num_filter": (None, {}, {"min_num": 0}),
    "text_action_filter": ("spacy_en", {}, {"min_action_num": 0}),
    "language_id_score_filter": ("lid_176", {}, {"min_score": 0.0}),
    "text_length_filter": (None, {}, {"min_len": 0}),
    "word_repetition_filter": (None, {"rep_len": 2}, {"min_ratio": 0.0, "max_ratio": 1.0}),
    "character_repetition_filter": (None, {"rep_len": 5}, {"min_ratio": 0.0, "max_ratio": 1.0}),
    "image_shape_filter": (None, {}, {}),
    "image_size_filter": (None, {}, {}),
    "image_aspect_ratio_filter": (None, {}, {"min_ratio": 0.0, "max_ratio": 1e9}),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folder of every model the cases name: tiny ones of the real classes, and the staged resources."""
    for name in ("spacy_en", "punkt_en", "lid_176"):
        if not (REPOSITORY / resource(name).path).exists():
            pytest.fail(f"{resource(name).path} is not staged: run `make setup`")
    import tiny_models

    root = tmp_path_factory.mktemp("models")
    return {
        "clip": tiny_models.clip(root / "clip"),
        "blip_itm": tiny_models.blip_itm(root / "blip_itm"),
        "aesthetics": tiny_models.aesthetics(root / "aesthetics-predictor-v2-linear"),
        "watermark": tiny_models.classifier(root / "watermark", seed=4),
        "nsfw": tiny_models.classifier(root / "nsfw", seed=14),
        "owlvit": tiny_models.owlvit(root / "owlvit"),
        "bert": tiny_models.bert(root / "bert"),
        "spacy_en": REPOSITORY / resource("spacy_en").path,
        "lid_176": REPOSITORY / resource("lid_176").path,
    }


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Folder of pictures, the awkward kinds among them."""
    folder = tmp_path_factory.mktemp("images")
    chance = random.Random(0)
    for number in range(8):
        image = Image.new("RGB", (40 + 9 * number, 64), tuple(chance.randrange(256) for _ in range(3)))
        draw = ImageDraw.Draw(image)
        for _ in range(4):
            x, y = chance.randrange(30), chance.randrange(40)
            draw.ellipse((x, y, x + 20, y + 15), fill=tuple(chance.randrange(256) for _ in range(3)))
        image.save(folder / f"{number}.jpg", quality=90)
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(folder / "turned.jpg", exif=turned)
    image.convert("L").save(folder / "grey.png")
    image.convert("P").save(folder / "palette.png")
    image.convert("RGBA").save(folder / "clear.png")
    image.convert("CMYK").save(folder / "print.jpg")
    return folder


@pytest.fixture(scope="module")
def records():
    """Pairs of every shape that reaches an operator."""
    captions = [
        "a man riding a red horse on the beach",
        "running and jumping dogs chase a cat",
        "un chien dort sur la table de la cuisine",
        "stock photo stock photo stock photo stock photo",
        "the house, the tree and the car - stock photo",
        "",
        "of and with",
        "日本の山 😀 naïve café",
    ]
    pairs = [Record(f"{number:03}", text_of(caption), [f"{number}.jpg"]) for number, caption in enumerate(captions)]
    awkward = ["turned.jpg", "grey.png", "palette.png", "clear.png", "print.jpg"]
    pairs += [Record(name, text_of("a dog with a ball"), [name]) for name in awkward]
    pairs.append(Record("long", text_of("a very long story of a boat " * 40), ["0.jpg"]))
    two_chunks = text_of("a red boat") + "<__dj__image> a big tree<|__dj__eoc|>"
    pairs.append(Record("two chunks", two_chunks, ["1.jpg", "2.jpg"]))
    pairs.append(Record("one chunk", "<__dj__image><__dj__image>\ntwo birds <|__dj__eoc|>", ["3.jpg", "4.jpg"]))
    pairs.append(Record("twice", text_of("a red boat") + text_of("a blue boat"), ["5.jpg", "5.jpg"]))
    pairs.append(Record("recaptioned", "<__dj__image> a flower on the table <|__dj__eoc|>", ["6.jpg"]))
    return pairs


@pytest.fixture(scope="module")
def run(models, images, records, tmp_path_factory):
    """`(configuration, layout)` of a run with one shard of records and an operator for every case."""
    operators = {
        op: {"op": op, "parameters": parameters, **({"model": model} if model else {})}
        for op, (model, parameters, _) in CASES.items()
    }
    ours = {
        "image_hash": {"op": "image_hash"},
        "image_ssim": {"op": "image_ssim", "parameters": {"size": 48, "reduced": 12}},
        "clip_embedding": {"op": "text_embedding", "model": "clip"},
        "embedding": {"op": "text_embedding", "model": "bert"},
    }
    configuration = Configuration.model_validate(
        {
            "pool": {"files": [{"path": "raw.jsonl", "name": "f"}], "images": str(images)},
            "models": {name: {"path": str(path)} for name, path in models.items()},
            "operators": {**operators, **ours},
        }
    )
    layout = Layout(tmp_path_factory.mktemp("results"))
    write_records(layout.records("pool", SHARD), records)
    return configuration, layout


def score_shard(name, configuration, layout):
    """Score the shard by one operator; returns where its scores lie."""
    from bettersynth.operators.scoring import score_chunk

    chunk = Chunk("cpu-000000000000", chunk_name([SHARD]))
    write_json(layout.scoring_pass(chunk.scoring), {"operators": {name: "its settings"}})
    score_chunk("pool", chunk, configuration, layout)
    key = read_json(layout.pass_card("pool", *chunk))["shards"][SHARD]["scores"][name]
    return layout.score_shard("pool", name, SHARD, key)


CAPTIONS = ["a photo of a dog", "the red car", "孩子们在公园里的草地上踢足球", "一个人在海边看书"]


def scores_of_captions(op, models, images, tmp_path, model=None, **parameters):
    """The stats of each caption by an operator with these parameters."""
    definition = {"op": op, "parameters": parameters, **({"model": "it"} if model else {})}
    configuration = Configuration.model_validate(
        {
            "pool": {"files": [{"path": "raw.jsonl", "name": "f"}], "images": str(images)},
            "models": {"it": {"path": str(model)}} if model else {},
            "operators": {"it": definition},
        }
    )
    layout = Layout(tmp_path / "-".join(["results", *map(str, parameters.values())]))
    write_records(layout.records("pool", SHARD), [Record(text, text_of(text), ["0.jpg"]) for text in CAPTIONS])
    path = score_shard("it", configuration, layout)
    assert read_json(path.with_suffix(".json"))["parameters"]["text"] == parameters.get("text", "whole")
    return read_table(path)


def test_the_language_may_be_that_of_the_caption_alone(models, images, tmp_path):
    """Data-Juicer's tokens are read as words otherwise, and turn captions into other languages."""
    whole = scores_of_captions("language_id_score_filter", models, images, tmp_path, models["lid_176"])
    alone = scores_of_captions("language_id_score_filter", models, images, tmp_path, models["lid_176"], text="caption")
    assert alone["lang"].to_pylist() == ["en", "en", "zh", "zh"] != whole["lang"].to_pylist()


def test_words_may_be_those_of_the_caption_alone_and_cut_by_a_model(models, images, tmp_path):
    import sentencepiece

    count = functools.partial(scores_of_captions, "words_num_filter", models, images, tmp_path)
    assert count()["num_words"].to_pylist() == [7, 5, 3, 3]
    assert count(text="caption")["num_words"].to_pylist() == [5, 3, 1, 1]
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "captions.txt"),
        model_prefix=str(tmp_path / "zh.sp"),
        vocab_size=60,
        hard_vocab_limit=False,
    )
    cut = count(tmp_path / "zh.sp.model", text="caption", tokenization=True, lang="zh")["num_words"].to_pylist()
    assert max(cut[2:]) > 1


def test_a_model_of_words_is_named_with_tokenization_and_only_then():
    def problems(**operator):
        pool = {"files": [{"path": "raw.jsonl", "name": "f"}], "images": "."}
        settings = {"pool": pool, "models": {"sp": {"path": "x"}}, "operators": {"words": operator}}
        configure(settings, "some.yaml")

    asks = "loads a model with `tokenization: true`, and only then"
    with pytest.raises(ConfigurationError, match=asks):
        problems(op="words_num_filter", parameters={"tokenization": True})
    with pytest.raises(ConfigurationError, match=asks):
        problems(op="words_num_filter", model="sp")
    with pytest.raises(ConfigurationError, match="one of whole, caption expected"):
        problems(op="words_num_filter", parameters={"text": "all"})


@pytest.fixture(scope="module")
def scored(run):
    """Scores a shard with the operator of that name and returns rows and card."""
    configuration, layout = run

    def score(name):
        path = score_shard(name, configuration, layout)
        return read_table(path), read_json(path.with_suffix(".json"))

    return score


@pytest.fixture(scope="module")
def stock(models, images, records, tmp_path_factory):
    """What Data-Juicer's executor writes: id -> stats."""
    process = []
    for op, (model, parameters, keep) in CASES.items():
        argument = operator_spec(op).model_argument
        loaded = {argument: str(models[model])} if argument else {}
        process.append({op: {**loaded, **parameters, **keep}})
    assets = {"en_core_web_md-3.7.0": models["spacy_en"], "lid.176.bin": models["lid_176"]}
    return executor_stats(process, records, images, tmp_path_factory.mktemp("stock"), assets)


@pytest.fixture(autouse=True)
def in_repository(monkeypatch):
    """Staged resources are found from the repository's root."""
    monkeypatch.chdir(REPOSITORY)


@pytest.mark.parametrize("op", CASES)
def test_equals_data_juicers_executor(op, scored, stock, records):
    table, card = scored(op)

    assert table["id"].to_pylist() == [record.id for record in records] == list(stock)
    assert card["rows"] == card["records"] == len(records)
    for key in operator_spec(op).stats:
        ours, theirs = table[key].to_pylist(), [stats[key] for stats in stock.values()]
        assert all(_same(mine, other) for mine, other in zip(ours, theirs, strict=True)), (key, ours, theirs)
        assert len({str(value) for value in ours}) > 1, "a constant score would prove nothing"


def _same(ours, theirs):
    """Equal; numbers to the ten decimals that the executor's JSON keeps, and float32 sums in another order."""
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(_same(*pair) for pair in zip(ours, theirs, strict=True))
    if isinstance(ours, float):
        return math.isclose(ours, theirs, abs_tol=2e-7)
    return type(ours) is type(theirs) and ours == theirs


def test_the_same_bytes_again(run):
    path = score_shard("phrase_grounding_recall_filter", *run)
    first = sha256_file(path)
    path.with_suffix(".json").unlink()
    path.unlink()
    score_shard("phrase_grounding_recall_filter", *run)

    assert sha256_file(path) == first == read_json(path.with_suffix(".json"))["sha256"]


def test_what_is_scored_is_not_scored_again(run):
    path = score_shard("words_num_filter", *run)
    before = path.stat().st_mtime_ns
    score_shard("words_num_filter", *run)

    assert path.stat().st_mtime_ns == before


def test_noun_phrases_come_in_a_fixed_order(models):
    from bettersynth.configuration.pool import Model, Operator
    from bettersynth.operators.catalogue.phrase_grounding_recall_filter import load_tagger
    from bettersynth.operators.data_juicer import build

    build(Operator(op="phrase_grounding_recall_filter"), Model(path=str(models["owlvit"])), "cpu")
    module = importlib.import_module("data_juicer.ops.filter.phrase_grounding_recall_filter")
    found = module.run_ner("a man, a dog, the tree and a red house on the beach", load_tagger())

    assert found == ["a dog", "a man", "a red house", "the beach", "the tree"]


def test_card_says_what_scored(scored, models):
    _, card = scored("phrase_grounding_recall_filter")

    assert card["tagger"] == "spaCy en_core_web_md 3.8.0"
    assert set(card["inputs"]) == {"model", "spacy_en", "punkt_en"}
    assert card["parameters"]["iou_thr"] == 0.8
    assert card["parameters"]["large_area_ratio_thr"] == 0.95
    assert card["seconds_by_part"]["computing"] > 0


def test_image_hash_tells_files_and_pictures_apart(scored, images):
    rows = {row["id"]: row for row in scored("image_hash")[0].to_pylist()}

    assert rows["005"]["image_sha256"] == [sha256_file(images / "5.jpg")]
    assert rows["twice"]["image_phash"][0] == rows["twice"]["image_phash"][1] == rows["005"]["image_phash"][0]
    assert rows["clear.png"]["image_phash"] == rows["007"]["image_phash"] != rows["turned.jpg"]["image_phash"]
    assert len(rows["grey.png"]["image_phash"][0]) == 16


def test_ssim_is_that_of_the_paper_and_falls_with_detail(scored):
    chance = np.random.default_rng(0)
    one, two = chance.integers(0, 256, (2, 9, 11)).astype(float)
    by_hand = []
    for y, x in itertools.product(range(3), range(5)):
        a, b = one[y : y + 7, x : x + 7], two[y : y + 7, x : x + 7]
        covariance = np.cov(a.ravel(), b.ravel())
        light = (2 * a.mean() * b.mean() + 6.5025) / (a.mean() ** 2 + b.mean() ** 2 + 6.5025)
        structure = (2 * covariance[0, 1] + 58.5225) / (covariance[0, 0] + covariance[1, 1] + 58.5225)
        by_hand.append(light * structure)
    assert ssim(one, two) == pytest.approx(np.mean(by_hand))
    assert ssim(one, one) == pytest.approx(1)
    rows = {row["id"]: row["image_ssim"] for row in scored("image_ssim")[0].to_pylist()}
    assert len(rows["two chunks"]) == 2
    assert 0 < rows["000"][0] < 1


@pytest.mark.parametrize(("operator", "dimensions"), [("clip_embedding", 16), ("embedding", 32)])
def test_text_embeddings_are_of_the_caption_alone(scored, records, operator, dimensions):
    table, card = scored(operator)
    rows = {row["id"]: row["text_embedding"] for row in table.to_pylist()}
    assert table.schema.field("text_embedding").type == pa.list_(pa.int8())
    assert all(len(row) == dimensions and max(map(abs, row)) == 127 for row in rows.values())
    assert rows["grey.png"] == rows["clear.png"] != rows["000"], "the same caption of other images"
    assert card["records"] == len(records)


def test_a_sentence_encoder_says_which_tokens_count(models, tmp_path):
    from bettersynth.operators.own.text_embedding import TextEmbedding

    folder = shutil.copytree(models["bert"], tmp_path / "bert")
    captions = ["a red boat", "a red boat and a big tree", "a very long story of a boat " * 40]
    mean = TextEmbedding(folder).encode(captions)
    assert torch.allclose(mean[:1], TextEmbedding(folder).encode(captions[:1]), atol=1e-5), "padding counts not"
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    first = TextEmbedding(folder)
    tokens = first.model(**first.tokenizer("a red boat", return_tensors="pt")).last_hidden_state
    assert torch.allclose(first.encode(captions)[0], tokens[0, 0], atol=1e-5)
    assert not torch.allclose(first.encode(captions)[0], mean[0], atol=1e-2)


def test_damaged_image_has_no_value_and_is_listed(run, images, tmp_path):
    configuration, _ = run
    whole = (images / "0.jpg").read_bytes()
    (images / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    layout = Layout(tmp_path)
    write_records(
        layout.records("pool", SHARD),
        [Record("good", text_of("a dog"), ["0.jpg"]), Record("bad", text_of("a dog"), ["cut.jpg"])],
    )
    path = score_shard("image_nsfw_filter", configuration, layout)

    good, bad = read_table(path)["image_nsfw_score"].to_pylist()
    assert bad is None
    assert len(good) == 1
    unreadable = read_json(path.with_suffix(".json"))["unreadable"]
    assert list(unreadable) == ["bad"]
    assert "truncated" in unreadable["bad"]


def test_a_caption_that_an_operator_raises_for_has_no_value_and_is_listed(run, images, tmp_path):
    configuration, _ = run
    layout = Layout(tmp_path)
    long = Record("long", text_of("a dog runs " * 100_000), ["0.jpg"])
    write_records(layout.records("pool", SHARD), [Record("good", text_of("a dog runs"), ["0.jpg"]), long])
    path = score_shard("text_action_filter", configuration, layout)

    assert read_table(path)["num_action"].to_pylist() == [1, None]
    assert list(read_json(path.with_suffix(".json"))["failed"]) == ["long"]


def test_missing_image_stops_and_names_the_record(run, tmp_path):
    from bettersynth.operators.scoring import ScoringError

    configuration, _ = run
    layout = Layout(tmp_path)
    write_records(layout.records("pool", SHARD), [Record("lost 1", text_of("a dog"), ["nowhere.jpg"])])
    with pytest.raises(ScoringError, match=r"image_shape_filter cannot score record lost 1 of .*f-0000.parquet"):
        score_shard("image_shape_filter", configuration, layout)

    assert not list(layout.root.rglob("*image_shape_filter*"))


def test_aesthetics_class_comes_from_the_folder_not_from_its_path(models, tmp_path, images):
    from bettersynth.configuration.pool import Model, Operator
    from bettersynth.operators.data_juicer import build, score

    moved = tmp_path / "v1" / "scorer"
    moved.parent.mkdir()
    moved.symlink_to(models["aesthetics"])
    operator = Operator(op="image_aesthetics_filter")
    scores = [
        score(build(operator, Model(path=str(path)), "cpu"), text_of("a dog"), [str(images / "1.jpg")])
        for path in (moved, models["aesthetics"])
    ]

    assert scores[0] == scores[1]


def test_pickled_weights_are_refused(tmp_path):
    from bettersynth.operators.model_folder import check_model_folder

    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"only pytorch_model.bin, which may run code"):
        check_model_folder(tmp_path)


def test_data_juicer_cannot_install_or_fetch():
    from bettersynth.runtime.patches.data_juicer import MissingPackageError, import_data_juicer

    model_utils = import_data_juicer()
    from data_juicer.utils.lazy_loader import LazyLoader

    with pytest.raises(MissingPackageError, match=r"no-such-package.*make setup"):
        LazyLoader.check_packages(["no-such-package"])
    with pytest.raises(FileNotFoundError, match=r"lid.176.bin"):
        model_utils.check_model("lid.176.bin")


@pytest.mark.parametrize("op", sorted(op for op, spec in catalogue().items() if not spec.ours))
def test_catalogue_agrees_with_the_installed_filters(op):
    spec, installed = operator_spec(op), stock_filters.describe(op)

    assert spec.stats.keys() == installed.stats.keys()
    assert spec.thresholds == installed.thresholds and spec.device == installed.device
    assert spec.model_argument == installed.model_argument
    assert {name: parameter.default for name, parameter in spec.parameters.items()}.items() <= {
        name: parameter.default for name, parameter in installed.parameters.items()
    }.items()


@pytest.mark.parametrize("op", sorted(stock_filters.filters()))
def test_what_is_read_in_a_filters_source_is_what_the_class_has(op):
    spec = stock_filters.describe(op)
    if spec.refused:
        pytest.skip(spec.refused)
    from data_juicer.utils.constant import StatsKeysConstant

    module = importlib.import_module(f"data_juicer.ops.filter.{op}")
    kind = next(entry for _, entry in inspect.getmembers(module, inspect.isclass) if getattr(entry, "_name", "") == op)
    parents = [parent for parent in reversed(kind.__mro__) if parent.__module__.startswith("data_juicer.ops.filter.")]
    arguments = {
        name: argument.default
        for parent in parents
        for name, argument in inspect.signature(parent.__init__).parameters.items()
        if argument.default is not inspect.Parameter.empty
    }
    found = {*spec.parameters, *spec.thresholds, spec.model_argument, *stock_filters.KEPT_BACK}

    assert arguments.keys() <= found
    assert {name: parameter.default for name, parameter in spec.parameters.items()}.items() <= arguments.items()
    assert all(default is None or arguments[name] == default for name, default in spec.thresholds.items())
    assert (spec.device == "gpu") == (kind._accelerator == "cuda")
    assert set(spec.stats) <= {value for name, value in vars(StatsKeysConstant).items() if not name.startswith("_")}


def test_unknown_operator_is_answered_with_the_nearest():
    with pytest.raises(UnknownOperatorError, match="did you mean `image_nsfw_filter`"):
        operator_spec("image_nswf_filter")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("reduce_mode", "mean", "one of avg, max, min"),
        ("iou_thr", 1.5, "at most 1"),
        ("iou_thr", "high", "float expected"),
        ("horizontal_flip", 1, "bool expected"),
        ("iou_thr", 1, None),
        ("reduce_mode", "min", None),
    ],
)
def test_parameter_values_are_checked(name, value, problem):
    found = operator_spec("phrase_grounding_recall_filter").parameters[name].problem(value)

    assert found is None if problem is None else problem in found

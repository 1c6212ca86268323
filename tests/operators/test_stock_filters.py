"""Filters of Data-Juicer that no module describes: named alone, they give what its own executor gives."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from stock_data_juicer import executor_stats

from bettersynth.configuration import stock
from bettersynth.configuration.operators import catalogue, operator_spec
from bettersynth.configuration.pool import Model, Operator, Reading, Scoring
from bettersynth.core.records import Record, text_of
from bettersynth.core.resources import resource

REPOSITORY = Path(__file__).parents[2]
GEMMA = REPOSITORY / "resources" / "miniature" / "models" / "gemma"
ANY_SCORE = {"min_score": -1e300, "max_score": 1e300}
ANY_RATIO = {"min_ratio": -1e9, "max_ratio": 1e9}
# Filter -> model, parameters, keep range that lets every record through.
CASES = {
    "alphanumeric_filter": (None, {}, ANY_RATIO),
    "average_line_length_filter": (None, {}, {"min_len": 0}),
    "maximum_line_length_filter": (None, {}, {"min_len": 0}),
    "special_characters_filter": (None, {}, ANY_RATIO),
    "general_field_filter": (None, {"filter_condition": "text != 'two\\nlines'"}, {}),
    "flagged_words_filter": ("words", {}, ANY_RATIO),
    "stopwords_filter": ("words", {"lang": "xx"}, ANY_RATIO),
    "text_entity_dependency_filter": ("spacy_en", {}, {"min_dependency_num": 0}),
    "token_num_filter": ("bert", {}, {"min_num": 0}),
    "text_pair_similarity_filter": ("clip", {"text_key_second": "text"}, ANY_SCORE),
    "image_pair_similarity_filter": ("clip", {}, ANY_SCORE),
    "llm_perplexity_filter": ("gemma", {}, ANY_SCORE),
    "instruction_following_difficulty_filter": ("gemma", {"query_template": "a photo"}, ANY_SCORE),
    "in_context_influence_filter": ("gemma", {"valid_dataset": [{"text": "a red boat"}]}, ANY_SCORE),
    "image_face_count_filter": (None, {}, {"min_face_count": 0, "max_face_count": 99}),
    "image_face_ratio_filter": (None, {}, ANY_RATIO),
    "image_subplot_filter": (None, {"min_line_length": 20, "hough_threshold": 30, "min_confidence": 2.0}, {}),
}
# Filter -> what its refusal says, where it cannot run anywhere here.
REFUSED = {
    "perplexity_filter": "needs the package kenlm",
    "specified_field_filter": "gives no score",
    "specified_numeric_field_filter": "gives no score",
    "suffix_filter": "gives no score",
    "text_embd_similarity_filter": "by an API",
    **dict.fromkeys(sorted(op for op in stock.filters() if op.startswith("llm_") and op not in CASES), "by an API"),
    **dict.fromkeys(sorted(op for op in stock.filters() if op.startswith("video_")), "videos"),
    **dict.fromkeys(sorted(op for op in stock.filters() if op.startswith("audio_")), "sounds"),
}
NEEDS_OPENCV = ("image_face_count_filter", "image_face_ratio_filter", "image_subplot_filter")
CONSTANT = ("text_pair_similarity_filter", *NEEDS_OPENCV)
"""One text with itself; drawings without faces."""
CALLED = "image_pair_similarity_filter"
"""Its stat is a tensor, which Data-Juicer's executor cannot write: it is called record by record instead."""


def test_every_filter_of_the_installed_data_juicer_runs_or_says_why_not():
    assert stock.filters() == {*CASES, *REFUSED, *catalogue()} & stock.filters()
    for op, reason in REFUSED.items():
        assert reason in str(stock.describe(op).refused), op


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Models of the cases: tiny ones with random weights, the miniature's, staged ones, and word lists."""
    import tiny_models

    root = tmp_path_factory.mktemp("models")
    (root / "words").mkdir()
    (root / "words" / "stopwords.json").write_text(json.dumps({"xx": ["a", "on", "the"]}))
    (root / "words" / "flagged_words.json").write_text(json.dumps({"en": ["boat", "dog"]}))
    return {
        "clip": tiny_models.clip(root / "clip"),
        "bert": tiny_models.bert(root / "bert"),
        "gemma": GEMMA,
        "words": root / "words",
        "spacy_en": REPOSITORY / resource("spacy_en").path,
    }


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Folder of drawings."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(4):
        image = Image.new("RGB", (160 + 20 * number, 150), (40 * number, 200, 90))
        for at in range(20, 140, 30):
            ImageDraw.Draw(image).line((at, 5, at, 145), fill=(0, 0, 0), width=number)
            ImageDraw.Draw(image).line((5, at, 145, at), fill=(0, 0, 0), width=number)
        image.save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def records():
    """Records with two images each, as one filter wants them."""
    captions = ["a man on a red boat", "two dogs & a cat!", "THE HOUSE 12", "naïve café, 日本", "a dog\nand a tree"]
    made = [
        Record(f"r{at}", text_of(text), [f"{at % 4}.png", f"{(at + 1) % 4}.png"]) for at, text in enumerate(captions)
    ]
    return [*made, Record("plain", "two\nlines", ["0.png", "3.png"])]


class Folder:
    """Finds images below one folder."""

    def __init__(self, folder):
        self._folder = folder

    def path(self, image_root, relative):
        return self._folder / relative


@pytest.fixture(scope="module")
def executor(models, images, records, tmp_path_factory):
    """Stats of Data-Juicer's executor, by id; the one filter whose range cannot be opened comes last."""
    process = []
    for op, (model, parameters, keep) in sorted(CASES.items(), key=lambda case: case[0] == "general_field_filter"):
        if op != CALLED and operator_spec_of(op) is not None:
            argument = stock.describe(op).model_argument
            loaded = {argument: str(models[model])} if argument and model else {}
            process.append({op: {**loaded, **parameters, **keep}})
    assets = {"en_core_web_md-3.7.0": models["spacy_en"]}
    return executor_stats(process, records, images, tmp_path_factory.mktemp("stock"), assets)


def operator_spec_of(op):
    """The filter's specification; None where OpenCV, which it needs, is not installed."""
    return None if op in NEEDS_OPENCV and find_spec("cv2") is None else operator_spec(op)


@pytest.mark.parametrize("op", CASES)
def test_equals_data_juicers_executor(op, models, images, records, executor, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    if (spec := operator_spec_of(op)) is None:
        assert "opencv-contrib-python" in str(stock.describe(op).refused)
        pytest.skip("OpenCV is not installed")
    from bettersynth.runtime import patches

    patches.prepare(tmp_path_factory.mktemp("cache"), 100_000_000)
    from bettersynth.operators.batched.scorer import BatchScorer

    model, parameters, _ = CASES[op]
    loaded = Model(path=str(models[model])) if model else None
    scorer = BatchScorer.load(
        {"it": (Operator(op=op, parameters=parameters), loaded)},
        reading=Reading(deep_grey="clip"),
        settings=Scoring(workers=0),
        device="cpu",
    )
    ours = dict(zip([record.id for record in records], scorer.score(records, Folder(images))["it"].stats, strict=True))

    assert executor.keys() == {f"r{number}" for number in range(5)}, "all but the one that the condition drops"
    expected_stats = executor
    if op == CALLED:
        from bettersynth.operators.data_juicer import build, score

        called = build(Operator(op=op, parameters=parameters), loaded, "cpu")
        paths = {record.id: [str(images / image) for image in record.images] for record in records}
        expected_stats = {
            record.id: {key: value.tolist() for key, value in score(called, record.text, paths[record.id]).items()}
            for record in records
        }
    written = {key for stats in expected_stats.values() for key in stats} & spec.stats.keys()
    assert written, "the executor writes what the source was said to write"
    for name, theirs in expected_stats.items():
        for key in spec.stats:
            expected = theirs[key] if key in written else None
            assert _same(ours[name][key], expected), (name, key, ours[name][key], expected)
    if op == "general_field_filter":
        assert ours["plain"] == {"general_field_filter_condition": 0.0}
    elif op not in CONSTANT:
        assert len({str(stats) for stats in ours.values()}) > 1, "a constant score would prove nothing"


def test_a_filter_on_a_gpu_runs_in_the_job_and_leaves_damaged_pictures_out(
    models, images, records, tmp_path, monkeypatch
):
    """Worker processes cannot reach a GPU's models. The model is on the CPU here; the way is the same."""
    monkeypatch.chdir(REPOSITORY)
    from bettersynth.runtime import patches

    patches.prepare(tmp_path, 100_000_000)
    from bettersynth.operators.batched.scorer import BatchScorer

    (images / "damaged.png").write_bytes((images / "0.png").read_bytes()[:300])
    some = [*records, Record("damaged", text_of("a boat"), ["damaged.png", "1.png"])]
    operator = Operator(op="image_pair_similarity_filter"), Model(path=str(models["clip"]))
    stats = []
    for in_job, workers in ((False, 0), (True, 2)):
        scorer = BatchScorer.load({"it": operator}, reading=Reading(), settings=Scoring(workers=workers), device="cpu")
        scorer._others["it"].in_job = in_job
        found = scorer.score(some, Folder(images))["it"]
        assert list(found.unreadable) == ["damaged"] and found.stats[-1] == {"image_pair_similarity": None}
        stats.append([entry["image_pair_similarity"] for entry in found.stats[:-1]])
    assert stats[0] == [pytest.approx(values, abs=1e-6) for values in stats[1]] and len(stats[0]) == len(records)


def _same(ours, theirs):
    """Equal to the ten decimals that the executor's JSON keeps, and float32's sums."""
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(_same(*pair) for pair in zip(ours, theirs, strict=True))
    return ours is theirs if None in (ours, theirs) else math.isclose(ours, float(theirs), rel_tol=1e-6, abs_tol=2e-7)


def test_a_model_is_what_a_filter_takes_a_path_for():
    assert operator_spec("stopwords_filter").model_argument == "stopwords_dir"
    assert operator_spec("token_num_filter").model_argument == "hf_tokenizer"
    assert operator_spec("text_entity_dependency_filter").tagger == "model"
    assert stock.describe("image_face_ratio_filter").model_optional


def test_what_decides_a_score_is_a_parameter_whatever_its_name():
    """`min_confidence` of `image_subplot_filter` is compared while stats are computed."""
    subplot = stock.describe("image_subplot_filter")

    assert "min_confidence" in subplot.parameters and "min_confidence" not in subplot.thresholds
    assert operator_spec("alphanumeric_filter").thresholds == {"min_ratio": 0.25, "max_ratio": None}
    assert "trust_remote_code" not in operator_spec("image_pair_similarity_filter").parameters


def test_no_operator_changes_how_many_threads_torch_has(models):
    import torch

    from bettersynth.operators.data_juicer import build

    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    op = "text_pair_similarity_filter"  # it asks for one thread, process-wide
    build(Operator(op=op, parameters=CASES[op][1]), Model(path=str(models["clip"])), "cpu")
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert after == before + 1

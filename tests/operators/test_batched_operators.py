"""The batched operators against Data-Juicer's own, called one sample at a time, for every operator and parameter."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from bettersynth.configuration.operators import catalogue
from bettersynth.configuration.pool import Model, Operator, Reading, Scoring
from bettersynth.core.records import Record, text_of
from bettersynth.core.resources import resource

REPOSITORY = Path(__file__).parents[2]
MINIATURE = REPOSITORY / "resources" / "miniature" / "models"
SAMPLE = Path(os.environ.get("CONTEST_SAMPLE", REPOSITORY.parent / "shared" / "data" / "contest-sample"))
MODELS = {
    "image_text_similarity_filter": "clip",
    "image_text_matching_filter": "blip_itm",
    "image_aesthetics_filter": "aesthetics-predictor-v2-linear",
    "image_watermark_filter": "watermark",
    "image_nsfw_filter": "nsfw",
    "phrase_grounding_recall_filter": "owlvit",
    "text_action_filter": "spacy_en",
    "language_id_score_filter": "lid_176",
}
TOLERANCE = 1e-5
PAIR_OPERATORS = ("image_text_similarity_filter", "image_text_matching_filter", "phrase_grounding_recall_filter")


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    """Data-Juicer and transformers work from local files only, from the repository's root."""
    from bettersynth.runtime import patches

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        patches.prepare(tmp_path_factory.mktemp("cache"), 100_000_000)
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folders of tiny models with random weights, by the miniature's names."""
    import tiny_models

    root = tmp_path_factory.mktemp("tiny")
    return {
        "clip": tiny_models.clip(root / "clip"),
        "blip_itm": tiny_models.blip_itm(root / "blip_itm"),
        "aesthetics-predictor-v2-linear": tiny_models.aesthetics(root / "aesthetics-predictor-v2-linear"),
        "watermark": tiny_models.classifier(root / "watermark", seed=4),
        "nsfw": tiny_models.classifier(root / "nsfw", seed=14),
        "owlvit": tiny_models.owlvit(root / "owlvit"),
    }


@pytest.fixture(scope="module")
def model_folder(tiny):
    """`(kind, op)` -> the operator's model, or None; the kind is `tiny` or `miniature`."""

    def folder(kind, op):
        name = MODELS.get(op)
        if name is None:
            return None
        if name in ("spacy_en", "lid_176"):
            return Model(path=str(REPOSITORY / resource(name).path))
        return Model(path=str(tiny[name] if kind == "tiny" else MINIATURE / name))

    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Folder of pictures, the awkward kinds among them."""
    folder = tmp_path_factory.mktemp("images")
    chance = random.Random(1)
    for number in range(8):
        image = Image.new("RGB", (60 + 31 * number, 97), tuple(chance.randrange(256) for _ in range(3)))
        draw = ImageDraw.Draw(image)
        for _ in range(9):
            x, y = chance.randrange(60), chance.randrange(70)
            draw.ellipse((x, y, x + 30, y + 25), fill=tuple(chance.randrange(256) for _ in range(3)))
        image.save(folder / f"{number}.jpg", quality=90)
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(folder / "turned.jpg", exif=turned)
    image.resize((90, 230)).save(folder / "tall.jpg")
    image.convert("L").save(folder / "grey.png")
    image.convert("P").save(folder / "palette.png")
    image.convert("RGBA").save(folder / "clear.png")
    image.convert("CMYK").save(folder / "print.jpg")
    image.convert("L").convert("I;16").save(folder / "deep.png")
    image.save(folder / "moving.gif", save_all=True, append_images=[image.rotate(90)])
    image.resize((5, 7)).save(folder / "small.png")
    return folder


@pytest.fixture(scope="module")
def records():
    """Records of every shape that Data-Juicer accepts and ingest lets through, and one without images."""
    captions = [
        "a man riding a red horse on the beach",
        "running and jumping dogs chase a cat and a small bird",
        "un chien dort sur la table de la cuisine",
        "stock photo stock photo stock photo stock photo",
        "the house, the tree and the car - stock photo!",
        "",
        "of and with",
        "日本の山 😀 naïve café",
    ]
    made = [Record(f"{number:03}", text_of(caption), [f"{number}.jpg"]) for number, caption in enumerate(captions)]
    awkward = ("turned.jpg", "tall.jpg", "grey.png", "palette.png", "clear.png", "print.jpg", "deep.png", "moving.gif")
    made += [Record(name, text_of("a dog with a ball"), [name]) for name in (*awkward, "small.png")]
    made.append(Record("long", text_of("a very long story of a boat " * 60), ["0.jpg"]))
    two_chunks = text_of("a red boat") + "<__dj__image> a big tree<|__dj__eoc|>"
    made.append(Record("two chunks", two_chunks, ["1.jpg", "2.jpg"]))
    nothing_first = text_of("and of") + text_of("a big tree and a house")
    made.append(Record("chunk without a noun", nothing_first, ["1.jpg", "2.jpg"]))
    made.append(Record("one chunk", "<__dj__image><__dj__image>\ntwo birds <|__dj__eoc|>", ["3.jpg", "4.jpg"]))
    made.append(Record("twice", text_of("a red boat") + text_of("a blue boat"), ["5.jpg", "5.jpg"]))
    three = "<__dj__image><__dj__image><__dj__image> a cat and a dog <|__dj__eoc|>"
    made.append(Record("twice and another", three, ["5.jpg", "5.jpg", "6.jpg"]))
    made.append(Record("text between", "no image here <|__dj__eoc|>" + text_of("a flower on the table"), ["7.jpg"]))
    made.append(Record("no end", "<__dj__image> a flower on the table", ["6.jpg"]))
    made.append(Record("no image", "a flower on the table", []))
    return made


class Folder:
    """Finds images below one folder."""

    def __init__(self, folder):
        self._folder = folder

    def path(self, image_root, relative):
        return self._folder / relative


def stock(operator, model, records, folder):
    """What Data-Juicer's filter gives each record, one after another."""
    import torch

    from bettersynth.operators.data_juicer import build, score
    from bettersynth.runtime.patches.data_juicer import import_data_juicer

    built = build(operator, model, "cpu")
    with torch.inference_mode():
        scores = [score(built, record.text, [str(folder / image) for image in record.images]) for record in records]
    import_data_juicer().MODEL_ZOO.clear()  # else every operator's models stay, a gigabyte for every few taggers
    return scores


def batched(operator, model, records, folder, **settings):
    """What the batch scorer gives each record."""
    from bettersynth.operators.batched.scorer import BatchScorer

    scorer = BatchScorer.load(
        {"it": (operator, model)}, reading=Reading(deep_grey="clip"), settings=Scoring(**settings), device="cpu"
    )
    return scorer.score(records, Folder(folder))["it"].stats


def plain(stats):
    """Lists and numbers of Python."""
    return {key: value.tolist() if hasattr(value, "tolist") else value for key, value in stats.items()}


def check_equal(ours, theirs, records):
    assert len(ours) == len(theirs) == len(records)
    for record, mine, other in zip(records, map(plain, ours), map(plain, theirs), strict=True):
        assert mine.keys() == other.keys()
        for key, value in other.items():
            expected = value if isinstance(value, str) else pytest.approx(value, abs=TOLERANCE, rel=0)
            assert mine[key] == expected, (record.id, key)


@pytest.mark.parametrize("op", sorted(op for op, spec in catalogue().items() if not spec.ours))
def test_equals_the_stock_operator(op, model_folder, images, records):
    operator, model = Operator(op=op), model_folder("tiny", op)
    theirs = stock(operator, model, records, images)

    check_equal(batched(operator, model, records, images), theirs, records)
    assert len({str(entry) for entry in theirs}) > 1, "a constant score would prove nothing"


@pytest.mark.parametrize("reduce_mode", ["avg", "max", "min"])
@pytest.mark.parametrize("vertical", [False, True])
@pytest.mark.parametrize("horizontal", [False, True])
@pytest.mark.parametrize("op", PAIR_OPERATORS)
def test_flips_and_reduce_modes(op, horizontal, vertical, reduce_mode, model_folder, images, records):
    parameters = {"horizontal_flip": horizontal, "vertical_flip": vertical, "reduce_mode": reduce_mode}
    operator, model = Operator(op=op, parameters=parameters), model_folder("tiny", op)

    check_equal(batched(operator, model, records, images), stock(operator, model, records, images), records)


@pytest.mark.parametrize(
    "parameters", [{"iou_thr": 0.9}, {"iou_thr": 0.05}, {"large_area_ratio_thr": 0.2}, {"conf_thr": 0.4}]
)
def test_grounding_parameters(parameters, model_folder, images, records):
    op = "phrase_grounding_recall_filter"
    operator, model = Operator(op=op, parameters=parameters), model_folder("tiny", op)

    check_equal(batched(operator, model, records, images), stock(operator, model, records, images), records)


@pytest.mark.parametrize("op", [op for op in MODELS if op.startswith(("image", "phrase"))])
def test_equals_the_stock_operator_with_trained_models(op, model_folder, images, records):
    operator, model = Operator(op=op), model_folder("miniature", op)

    check_equal(batched(operator, model, records, images), stock(operator, model, records, images), records)


@pytest.mark.parametrize("op", [op for op in MODELS if op.startswith(("image", "phrase"))])
def test_a_score_does_not_depend_on_its_company(op, model_folder, images, records):
    operator, model = Operator(op=op), model_folder("tiny", op)
    reference = batched(operator, model, records, images)

    backwards = batched(operator, model, records[::-1], images, batch=5)
    check_equal(backwards[::-1], reference, records)
    alone = [batched(operator, model, [record], images, batch=1)[0] for record in records[:3]]
    check_equal(alone, reference[:3], records[:3])


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="set CONTEST_SAMPLE to a folder with pool.jsonl and images/")
@pytest.mark.parametrize("op", MODELS)
def test_on_real_pairs(op, model_folder):
    lines = (SAMPLE / "pool.jsonl").read_text(encoding="utf-8").splitlines()
    records = [Record(row["id"], row["text"], row["images"]) for row in map(json.loads, lines)]
    operator, model = Operator(op=op), model_folder("miniature", op)

    check_equal(batched(operator, model, records, SAMPLE), stock(operator, model, records, SAMPLE), records)

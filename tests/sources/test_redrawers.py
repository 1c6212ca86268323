"""Every family of redrawers with a tiny pipeline of its real class, in both directions."""

import numpy as np
import pytest
import tiny_diffusion
import torch
from PIL import Image
from pydantic import ValidationError

from bettersynth.configuration.generators import Redrawer
from bettersynth.core.publish import write_json
from bettersynth.runtime.devices import DoesNotFitError
from bettersynth.sources.redrawers import DiffusionModel, Drawing, pipeline_index

FAMILIES = ("stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipelines")
    return {name: getattr(tiny_diffusion, name)(root / name) for name in FAMILIES}


def model(folder, batch=4, strength=0.8):
    settings = Redrawer(model="any", strength=strength, steps=3, size=tiny_diffusion.SIDE, batch=batch)
    return DiffusionModel(settings, folder, "cpu")


def drawings(count, image=True):
    chance = np.random.default_rng(0)
    picture = Image.fromarray(chance.integers(0, 256, (40, 50, 3), dtype=np.uint8)) if image else None
    return [Drawing(f"id {number}", "a red cat", picture) for number in range(count)]


def pixels(pictures):
    return np.stack([np.asarray(picture, dtype=int) for picture in pictures])


@pytest.mark.parametrize("strength", [0.8, None])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_depends_on_its_record(folders, family, strength):
    asked = drawings(5, image=strength is not None)
    together = model(folders[family], strength=strength).draw(asked, seed=3)
    reordered = model(folders[family], strength=strength).draw(asked[:2:-1], seed=3)
    one_by_one = model(folders[family], batch=1, strength=strength).draw(asked, seed=3)
    other_seed = model(folders[family], strength=strength).draw(asked[:1], seed=4)

    assert {picture.size for picture in together} == ({(50, 40)} if strength else {(tiny_diffusion.SIDE,) * 2})
    assert len({picture.tobytes() for picture in [*together, *other_seed]}) == 6
    assert [picture.tobytes() for picture in reordered] == [picture.tobytes() for picture in together[:2:-1]]
    assert abs(pixels(one_by_one) - pixels(together)).max() <= 2


def test_text_to_image_follows_the_caption(folders):
    drawn = [
        model(folders["stable_diffusion"], strength=None).draw([Drawing("x", caption, None)], 0)[0]
        for caption in ("a red cat", "two boats")
    ]

    assert drawn[0].tobytes() != drawn[1].tobytes()


def test_a_refused_picture_is_none(folders, monkeypatch):
    pipeline = model(folders["stable_diffusion"])
    call = type(pipeline.pipeline).__call__

    def refusing(self, **arguments):
        result = call(self, **arguments)
        result.nsfw_content_detected = [False, True, False, False]
        return result

    monkeypatch.setattr(type(pipeline.pipeline), "__call__", refusing)

    assert [picture is None for picture in pipeline.draw(drawings(3), 0)] == [False, True, False]


def test_a_batch_that_does_not_fit_is_halved_down_to_one(folders, monkeypatch, caplog):
    whole = model(folders["stable_diffusion"], batch=2).draw(drawings(5), 0)
    draw = DiffusionModel._draw
    sizes = []

    def small_gpu(self, asked, seed, limit=2):
        sizes.append(self.batch.size)
        if self.batch.size > limit:
            raise torch.OutOfMemoryError
        return draw(self, asked, seed)

    monkeypatch.setattr(DiffusionModel, "_draw", small_gpu)
    halved = model(folders["stable_diffusion"], batch=8).draw(drawings(5), 0)
    assert sizes == [8, 4, 2, 2, 2]
    assert [picture.tobytes() for picture in halved] == [picture.tobytes() for picture in whole]
    assert "out of GPU memory with 8 images: going on with 4" in caplog.text

    monkeypatch.setattr(DiffusionModel, "_draw", lambda self, asked, seed: small_gpu(self, asked, seed, limit=0))
    with pytest.raises(DoesNotFitError, match="record id 0: one image does not fit"):
        model(folders["stable_diffusion"]).draw(drawings(5), 0)


def test_a_picture_that_the_pipeline_raises_for_is_refused_by_name(folders, monkeypatch, caplog):
    pipeline = model(folders["stable_diffusion"])
    whole = pipeline.draw(drawings(5), 0)
    call = type(pipeline.pipeline).__call__

    def raising(self, **arguments):
        if "odd" in arguments["prompt"]:
            raise ValueError("odd size")
        return call(self, **arguments)

    monkeypatch.setattr(type(pipeline.pipeline), "__call__", raising)
    asked = [*drawings(2), drawings(3)[2]._replace(caption="odd"), *drawings(5)[3:]]
    drawn = pipeline.draw(asked, 0)
    assert drawn.pop(2) == "image refused"
    assert abs(pixels(drawn) - pixels(whole[:2] + whole[3:])).max() <= 2
    assert "record id 2: image refused: ValueError: odd size" in caplog.text

    monkeypatch.setattr(type(pipeline.pipeline), "__call__", lambda self, **arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # which no picture is to blame for
        pipeline.draw(drawings(5), 0)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a diffusers folder"):
        pipeline_index(tmp_path)
    write_json(tmp_path / "model_index.json", {"_class_name": "KandinskyPipeline"})
    with pytest.raises(ValueError, match="KandinskyPipeline is no redrawer known here; known: StableDiffusionPipeline"):
        pipeline_index(tmp_path)


def test_less_than_one_step_is_refused():
    with pytest.raises(ValidationError, match=r"strength 0.5 of 1 steps is less than one step"):
        Redrawer(model="turbo", steps=1, strength=0.5)
    assert Redrawer(model="turbo", steps=1, strength=None).strength is None

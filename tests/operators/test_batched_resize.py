"""Resizing on the device against Pillow and the stock image processors: the same bytes."""

from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from bettersynth.operators.batched import pixels
from bettersynth.operators.batched import resize as resize_module
from bettersynth.operators.batched.pixels import Geometry, split
from bettersynth.operators.batched.resize import resize

SIZES = [(336, 448), (97, 61), (5, 7), (1, 9), (300, 300), (400, 333), (700, 37), (336, 672), (224, 224)]


DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"), id="gpu"),
]


@pytest.fixture(scope="module")
def pictures():
    """Noise of many heights and widths."""
    chance = np.random.default_rng(0)
    return [chance.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]


def on_device(pictures, geometry, device="cpu"):
    """All pictures resized together."""
    buffer = torch.from_numpy(np.concatenate([picture.reshape(-1, 3) for picture in pictures])).to(device)
    offsets = np.cumsum([0, *(picture.shape[0] * picture.shape[1] for picture in pictures)])
    wanted = [
        geometry.picture(int(offset), *picture.shape[:2]) for offset, picture in zip(offsets, pictures, strict=False)
    ]
    return resize(buffer, wanted, geometry.resample).cpu().numpy()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("size", [(224, 224), (32, 48), (384, 384)])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
def test_same_bytes_as_pillow(pictures, size, resample, flips, device):
    geometry = Geometry(size, int(resample), None, *flips)

    for made, picture in zip(on_device(pictures, geometry, device), pictures, strict=True):
        assert np.array_equal(made, geometry.apply(Image.fromarray(picture))), picture.shape


@pytest.mark.parametrize("device", DEVICES)
def test_same_bytes_as_pillow_after_a_crop(pictures, device):
    geometry = Geometry(64, int(Image.Resampling.BICUBIC), (64, 60))

    for made, picture in zip(on_device(pictures, geometry, device), pictures, strict=True):
        assert np.array_equal(made, geometry.apply(Image.fromarray(picture))), picture.shape


@pytest.mark.parametrize("size", [(1000, 3), (3, 1000), (900, 40), (40, 900), (65_535, 2), (2, 65_535)])
@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("flips", [(False, False), (True, True)])
def test_same_bytes_as_pillow_where_what_is_cut_off_is_never_made(monkeypatch, size, resample, flips):
    picture = Image.frombytes("RGB", size, Random(1).randbytes(3 * size[0] * size[1]))
    geometry = Geometry(32, int(resample), (32, 32), *flips)
    monkeypatch.setattr(pixels, "MOST_RESIZED", 10**9)
    whole = geometry.apply(picture)
    monkeypatch.setattr(pixels, "MOST_RESIZED", 0)
    assert np.array_equal(geometry.apply(picture), whole)
    other = geometry._replace(resample=int(Image.Resampling.LANCZOS))
    assert other.apply(picture).shape == (32, 32, 3)


@pytest.mark.parametrize("device", DEVICES)
def test_same_bytes_whatever_was_resized_before(pictures, device, monkeypatch):
    """The device keeps the taps of few axes here: it adds some, and begins anew when they are too many."""
    monkeypatch.setattr(resize_module, "MOST_TAPS", 20_000)
    geometry = Geometry((32, 48), int(Image.Resampling.BICUBIC), None)
    table = resize_module._Table(torch.device(device), geometry.resample)
    monkeypatch.setattr(resize_module, "_table", lambda *_: table)
    chance = Random(0)
    sizes = []
    for _ in range(12):
        some = chance.sample(pictures, 3)
        for made, picture in zip(on_device(some, geometry, device), some, strict=True):
            assert np.array_equal(made, geometry.apply(Image.fromarray(picture))), picture.shape
        sizes.append(table._used)
    assert max(sizes) <= 20_000 and sorted(sizes) != sizes


def test_taps_that_found_no_memory_are_not_taken_for_there(pictures, monkeypatch):
    geometry = Geometry((32, 48), int(Image.Resampling.BICUBIC), None)
    table = resize_module._Table(torch.device("cpu"), geometry.resample)
    monkeypatch.setattr(resize_module, "_table", lambda *_: table)

    def no_memory(*_):
        raise torch.OutOfMemoryError

    with monkeypatch.context() as full:
        full.setattr(resize_module.torch, "from_numpy", no_memory)
        with pytest.raises(torch.OutOfMemoryError):
            table.places([(100, geometry.picture(0, 100, 90).plan.down)])
    assert table.places([]).size == 0 and table._used == 0 and not table._places
    for made, picture in zip(on_device(pictures, geometry), pictures, strict=True):
        assert np.array_equal(made, geometry.apply(Image.fromarray(picture))), picture.shape


def processors():
    """One of each supported class, with the published settings where they are not the class's own."""
    from transformers import BlipImageProcessor, CLIPImageProcessor, OwlViTImageProcessor, ViTImageProcessor

    square = {"height": 48, "width": 48}
    return [
        CLIPImageProcessor(),
        CLIPImageProcessor(size={"shortest_edge": 20}, crop_size={"height": 32, "width": 24}),
        BlipImageProcessor(),
        OwlViTImageProcessor(size=square),
        ViTImageProcessor(),
        ViTImageProcessor(do_normalize=False, resample=1),
        ViTImageProcessor(do_rescale=False),
    ]


@pytest.mark.parametrize("processor", processors(), ids=lambda processor: type(processor).__name__)
def test_same_numbers_as_the_stock_processor(processor, pictures):
    geometry, normalisation = split(processor, False, False)
    usual = [picture for picture in pictures if picture.shape[0] > 3]  # transformers takes three rows for channels
    expected = processor(images=[Image.fromarray(picture) for picture in usual], return_tensors="pt").pixel_values
    pixels = torch.from_numpy(np.stack([geometry.apply(Image.fromarray(picture)) for picture in usual]))
    numbers = normalisation.apply(pixels, torch.float32)

    torch.testing.assert_close(numbers, expected, atol=1e-6, rtol=1e-6)
    if geometry.fits_device:
        assert np.array_equal(on_device(usual, geometry), pixels.numpy())

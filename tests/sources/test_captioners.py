"""Every family of captioners with a tiny model of its real class: what it says, and that nobody else has a say."""

import json
import math
import shutil
from collections import Counter

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image

from bettersynth.configuration.family import captioner_families
from bettersynth.configuration.generators import Captioner
from bettersynth.configuration.pool import Reading
from bettersynth.operators.batched import pixels
from bettersynth.pool.images import open_image
from bettersynth.sources.captioners import families
from bettersynth.sources.captioners.families import open_family
from bettersynth.sources.captioners.reading import Request
from bettersynth.sources.captioners.recaptioner import Writer
from bettersynth.sources.captioners.sampling import Sampler, gumbel

KINDS = ("blip2", "blip2_t5", "llava", "llava_next", "qwen2_vl", "qwen2_5_vl", "internvl", "florence2")
"""Functions of `tiny_models`; between them every class that is known."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: getattr(tiny_models, kind)(root / kind) for kind in KINDS}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Nine pictures of three shapes."""
    folder = tmp_path_factory.mktemp("pictures")
    chance = np.random.default_rng(1)
    for number in range(9):
        blocks = chance.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        size = [(48, 40), (40, 72), (60, 60)][number % 3]
        Image.fromarray(blocks).resize(size, Image.Resampling.BILINEAR).save(folder / f"{number}.png")
    return folder


def requests(pictures, numbers=range(9)):
    return [Request(f"id {number}", number, 0, pictures / f"{number}.png") for number in numbers]


def captions(folder, asked, seed=0, device="cpu", **settings):
    """Candidates by key."""
    settings = {"model": "any", "max_new_tokens": 8, "workers": 0, "sampling": False, **settings}
    writer = Writer(open_family(Captioner(**settings), folder, device), seed, Reading())
    return {request.key: answer for request, answer in writer.write(asked)}


def test_every_known_class_is_tested(folders):
    tested = {
        open_family(Captioner(model="any"), folder, "cpu").model.__class__.__name__ for folder in folders.values()
    }

    assert tested == {family.architecture for family in captioner_families()}


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_captions_are_what_transformers_says_of_one_image(folders, pictures, kind):
    family = open_family(Captioner(model="any", sampling=False, max_new_tokens=8), folders[kind], "cpu")
    alone = {}
    for request in requests(pictures):
        inputs = family.inputs([open_image(request.file, Reading())])
        tokens = family.model.generate(**inputs, max_new_tokens=8, do_sample=False, num_beams=1)[0]
        start = 0 if family.encodes else inputs["input_ids"].shape[1]
        alone[request.key] = [" ".join(family.tokenizer.decode(tokens[start:], skip_special_tokens=True).split())]

    assert captions(folders[kind], requests(pictures)) == alone
    assert len({caption for (caption,) in alone.values()}) > 1 or kind == "florence2"


@pytest.mark.parametrize("settings", [{"sampling": False}, {"sampling": True, "candidates": 3}])
@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_depends_on_its_image_only(folders, pictures, kind, settings):
    together = captions(folders[kind], requests(pictures), batch=256, **settings)
    one_by_one = captions(folders[kind], requests(pictures), batch=1, **settings)
    reordered = captions(folders[kind], requests(pictures, [7, 2, 5]), batch=2, workers=2, **settings)

    assert one_by_one == together
    assert reordered == {key: together[key] for key in ("id 7", "id 2", "id 5")}


ODD_SIZES = [(96, 1), (96, 3), (1, 96), (3, 96), (1, 1), (3, 3), (500, 1), (1, 500), (60_000, 1), (1, 60_000)]


@pytest.fixture(scope="module")
def odd_pictures(tmp_path_factory):
    """Pictures so flat or so narrow that a processor may take their rows for channels, or refuse them."""
    folder = tmp_path_factory.mktemp("odd")
    chance = np.random.default_rng(2)
    for number, (width, height) in enumerate(ODD_SIZES):
        Image.fromarray(chance.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_an_odd_picture_has_the_same_captions_in_any_batch(folders, pictures, odd_pictures, kind):
    odd = requests(odd_pictures, range(len(ODD_SIZES)))
    usual = [request._replace(key=f"usual {request.key}", place=100 + request.place) for request in requests(pictures)]
    together = captions(folders[kind], usual[:3] + odd + usual[3:], batch=64)

    assert captions(folders[kind], usual) == {request.key: together[request.key] for request in usual}
    assert captions(folders[kind], odd, batch=1) == {request.key: together[request.key] for request in odd}
    refused = [size for size, request in zip(ODD_SIZES, odd, strict=True) if isinstance(together[request.key], str)]
    assert refused == (ODD_SIZES[6:] if kind.startswith("qwen") else [])
    assert {together[request.key] for request in odd if isinstance(together[request.key], str)} <= {"image refused"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_processor_reads_an_odd_picture_as_it_does_beside_another(folders, pictures, odd_pictures, kind):
    """Stock processors ask the first image of a batch where its channels are; LLaVA-NeXT and Qwen ask each."""
    family = open_family(Captioner(model="any"), folders[kind], "cpu")
    usual = open_image(pictures / "0.png", Reading())
    text = {} if family.prompt() is None else {"text": [family.prompt()] * 2, "padding": True}
    for number, size in enumerate(ODD_SIZES[:6]):
        odd = open_image(odd_pictures / f"{number}.png", Reading())
        if kind == "llava_next" and size[1] == 1:
            assert family.inputs([odd])["pixel_values"].shape[:2] == (1, 3)
            continue
        if kind.startswith("qwen") and size[0] > size[1]:
            _, height, width = family.inputs([odd])["image_grid_thw"][0].tolist()
            assert width > height, size
            continue
        if kind.startswith("qwen") and size[0] == size[1]:
            continue  # either way round alike
        stock = family.processor(images=[usual, odd], return_tensors="pt", **text)
        ours = family.inputs([usual, odd])
        assert all(torch.equal(ours[name], stock[name]) for name in stock), size


def test_a_processor_that_refuses_every_picture_stops_the_job(folders, pictures, monkeypatch):
    family = open_family(Captioner(model="any", workers=0), folders["blip2"], "cpu")
    monkeypatch.setattr(type(family.processor), "__call__", lambda self, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(Writer(family, 0, Reading()).write(requests(pictures)))


def test_llavas_processor_is_given_no_more_of_a_long_picture_than_it_keeps(folders, monkeypatch):
    family = open_family(Captioner(model="any"), folders["llava"], "cpu")
    chance = np.random.default_rng(3)
    long = Image.fromarray(chance.integers(0, 256, (7, 900, 3), dtype=np.uint8))
    whole = family.inputs([long])["pixel_values"]
    assert family._geometry is not None
    monkeypatch.setattr(families, "MOST_RESIZED", 1000)
    monkeypatch.setattr(pixels, "MOST_RESIZED", 1000)
    seen = []
    call = type(family.processor).__call__

    def seeing(self, **options):
        seen.extend(options["images"])
        return call(self, **options)

    monkeypatch.setattr(type(family.processor), "__call__", seeing)
    assert torch.equal(family.inputs([long])["pixel_values"], whole)
    assert seen[0].size == (tiny_models.SIDE, tiny_models.SIDE)


@pytest.mark.parametrize("kind", ["blip2", "blip2_t5"])
def test_draws_differ_by_record_candidate_and_seed(folders, pictures, kind):
    same = [Request(f"id {number}", number, 0, pictures / "0.png") for number in range(4)]
    drawn = captions(folders[kind], same, sampling=True, candidates=2)
    other = captions(folders[kind], same, seed=1, sampling=True, candidates=2)

    assert len({caption for answer in [*drawn.values(), *other.values()] for caption in answer}) == 16


def test_draws_stay_within_the_models_top_k(folders, pictures):
    family = open_family(Captioner(model="any", max_new_tokens=8, workers=0), folders["blip2"], "cpu")
    family.generation_config.top_k = 1
    drawn = {request.key: answer for request, answer in Writer(family, 0, Reading()).write(requests(pictures))}

    assert drawn == captions(folders["blip2"], requests(pictures))


def test_more_images_than_rows_take_turns(folders, pictures):
    """Sampled captions end at different words, so that rows change hands while others are in the middle."""
    many = [Request(f"id {number}", number, 0, pictures / f"{number % 9}.png") for number in range(60)]
    few_rows = captions(folders["llava"], many, sampling=True, batch=3, max_new_tokens=20)

    assert few_rows == captions(folders["llava"], many, sampling=True, batch=64, max_new_tokens=20)
    assert len({len(answer[0].split()) for answer in few_rows.values()}) > 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("sampling", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu_too_a_caption_depends_on_its_image_only(folders, pictures, kind, sampling):
    many = [Request(f"id {number}", number, 0, pictures / f"{number % 9}.png") for number in range(60)]
    settings = {"device": "cuda", "sampling": sampling, "max_new_tokens": 20}
    exact = captions(folders[kind], many, precision="fp32", batch=64, **settings)
    half = captions(folders[kind], many, precision="bf16", batch=16, **settings)

    few_rows = captions(folders[kind], many, precision="fp32", batch=3, **settings)
    if sampling:  # a GPU's sums round by the batch, and one draw in some hundred is that close
        assert sum(exact[key] != answer for key, answer in few_rows.items()) <= 3
    else:
        assert exact == few_rows == captions(folders[kind], many, max_new_tokens=20)
    reordered = captions(folders[kind], many[::-1], precision="bf16", batch=16, workers=2, **settings)
    assert reordered == half


def test_the_prompt_is_not_part_of_the_caption(folders, pictures):
    for kind, prompt in (("blip2", "a photo of"), ("llava", "the picture"), ("qwen2_vl", "the picture")):
        family = open_family(Captioner(model="any", prompt=prompt), folders[kind], "cpu")
        asked = family.tokenizer.decode(
            family.inputs([open_image(pictures / "0.png", Reading())])["input_ids"][0], skip_special_tokens=True
        )
        assert prompt in asked
        (answer,) = captions(folders[kind], requests(pictures, [0]), prompt=prompt).values()
        assert not answer[0].startswith((prompt, asked))


def test_questions_are_put_in_the_models_chat_form(folders):
    def asked(kind, prompt):
        return open_family(Captioner(model="any", prompt=prompt), folders[kind], "cpu").prompt()

    assert asked("llava", "the sky") == "USER: <image> the sky ASSISTANT:"
    assert asked("llava", "USER: <image>\nthe sky ASSISTANT:") == "USER: <image>\nthe sky ASSISTANT:"
    assert asked("qwen2_vl", None) == (
        "USER: <|vision_start|><|image_pad|><|vision_end|> Describe the image. ASSISTANT:"
    )
    assert asked("florence2", None) == "<CAPTION>"
    assert asked("blip2", None) is None


def test_llava_without_a_chat_template_is_asked_as_it_was_trained(folders, monkeypatch):
    family = open_family(Captioner(model="any", prompt="the sky"), folders["llava"], "cpu")
    family.processor.chat_template = None

    assert family.prompt() == "USER: <image>\nthe sky ASSISTANT:"


@pytest.mark.parametrize("kind", ["llava", "llava_next", "blip2"])
def test_a_processor_from_before_its_file_is_completed_from_the_model(folders, pictures, tmp_path, caplog, kind):
    old = shutil.copytree(folders[kind], tmp_path / "old")
    (old / "processor_config.json").unlink()
    picture = Image.open(pictures / "0.png")
    new = open_family(Captioner(model="any"), folders[kind], "cpu")
    expected = new.inputs([picture])
    with caplog.at_level("INFO", "bettersynth"):
        family = open_family(Captioner(model="any"), old, "cpu")
    assert "does not say" in caplog.text and "config.json" in caplog.text
    if family.processor.chat_template is None:
        family.processor.chat_template = open_family(
            Captioner(model="any"), folders[kind], "cpu"
        ).processor.chat_template
    found = family.inputs([picture])
    assert {name: value.tolist() for name, value in found.items()} == {
        name: value.tolist() for name, value in expected.items()
    }


def test_noise_samples_the_softmax():
    logits = torch.tensor([[2.0, 1.0, 0.0, -torch.inf]]).repeat(20_000, 1)
    seeds = torch.arange(20_000)
    chosen = (logits + gumbel(seeds, torch.zeros_like(seeds), 4)).argmax(-1)
    draws = Counter(chosen.tolist())

    for token, share in enumerate(torch.softmax(logits[0], 0).tolist()):
        assert abs(draws[token] / 20_000 - share) < 0.012


def test_noise_is_a_rows_own_and_new_with_every_word():
    seeds, steps = torch.tensor([5, 6, 5, 5]), torch.tensor([0, 0, 1, 0])
    noise = gumbel(seeds, steps, 1000)

    assert torch.equal(noise[0], noise[3])
    assert torch.equal(noise[1:2], gumbel(seeds[1:2], steps[1:2], 1000))
    for other in (1, 2):
        assert abs(float(torch.corrcoef(noise[[0, other]])[0, 1])) < 0.1
    assert noise.isfinite().all()
    # of Gumbel's distribution: mean 0.5772, variance pi²/6
    many = gumbel(torch.arange(100), torch.zeros(100, dtype=torch.int64), 1000)
    assert abs(float(many.mean()) - 0.5772) < 0.02
    assert abs(float(many.var()) - 1.6449) < 0.03


def test_noise_is_splitmix_of_seed_word_and_token():
    """In plain integers; captions of a seed stay what they were, from release to release and device to device."""

    def mixed(state):
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
        return state ^ (state >> 31)

    golden, seeds, steps = 0x9E3779B97F4A7C15, [0, 2**62 + 1], [0, 3]
    expected = []
    for seed, step in zip(seeds, steps, strict=True):
        state = mixed((seed + golden * (step + 1)) % 2**64)
        bits = [mixed((state + golden * token) % 2**64) for token in (1, 2, 3)]
        expected.append([-math.log(-math.log(((word >> 11) + 0.5) / 2**53)) for word in bits])

    assert gumbel(torch.tensor(seeds), torch.tensor(steps), 3).tolist() == [pytest.approx(row) for row in expected]


def test_temperature_sharpens(folders):
    family = open_family(Captioner(model="any", temperature=0.01), folders["llava"], "cpu")
    sampler = Sampler(family.settings, family.generation_config)
    logits, seeds = torch.randn(50, 30, generator=torch.Generator().manual_seed(0)), torch.arange(50)

    assert torch.equal(sampler.noisy(logits, seeds, seeds).argmax(-1), logits.argmax(-1))


def test_unknown_architecture_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["GitForCausalLM"]}))
    (tmp_path / "model.safetensors").write_bytes(b"")

    with pytest.raises(ValueError, match="GitForCausalLM is no captioner known here") as failure:
        open_family(Captioner(model="any"), tmp_path, "cpu")
    assert all(name in str(failure.value) for name in (family.architecture for family in captioner_families()))


@pytest.mark.parametrize("kind", ["blip2", "llava", "qwen2_vl", "internvl"])
def test_the_models_repetition_penalty_counts_as_in_transformers(folders, pictures, kind):
    """Its own words and the prompt's; the penalty is large, so that greedy captions become others."""
    settings = Captioner(model="any", sampling=False, max_new_tokens=12, workers=0, batch=4, prompt="the red sky")
    family = open_family(settings, folders[kind], "cpu")
    plain = {request.key: answer for request, answer in Writer(family, 0, Reading()).write(requests(pictures))}
    family = open_family(settings, folders[kind], "cpu")
    for config in (family.generation_config, family.language_model.generation_config):
        config.repetition_penalty = 3.0
    alone = {}
    for request in requests(pictures):
        inputs = family.inputs([open_image(request.file, Reading())])
        tokens = family.model.generate(**inputs, max_new_tokens=12, do_sample=False, num_beams=1)[0]
        alone[request.key] = [family.caption(tokens[inputs["input_ids"].shape[1] :])]

    assert {request.key: answer for request, answer in Writer(family, 0, Reading()).write(requests(pictures))} == alone
    assert alone != plain

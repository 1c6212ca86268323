"""What vLLM's engine is asked and what becomes of its answers, with a stand-in for vLLM itself."""

import sys

import fake_vllm
import numpy as np
import pytest
import tiny_models
from PIL import Image

from bettersynth.configuration.generators import Captioner
from bettersynth.configuration.pool import Reading
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.records import Record, text_of
from bettersynth.core.seeding import record_seed
from bettersynth.pool.images import ImageRoots
from bettersynth.sources.base import GeneratorError
from bettersynth.sources.captioners.choice import captioned_text
from bettersynth.sources.captioners.families import open_family
from bettersynth.sources.captioners.reading import Request
from bettersynth.sources.captioners.recaptioner import Recaptioner
from bettersynth.sources.captioners.vllm_engine import ENVIRONMENT, VllmWriter
from bettersynth.workflow.jobs import Jobs

SERVED = ("blip2", "llava", "llava_next", "qwen2_vl", "qwen2_5_vl", "internvl")
REFUSED = ("blip2_t5", "florence2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: getattr(tiny_models, kind)(root / kind) for kind in SERVED + REFUSED}


@pytest.fixture
def vllm(tmp_path, monkeypatch):
    """The stand-in, installed as vLLM 0.11.0."""
    (tmp_path / "vllm-0.11.0.dist-info").mkdir()
    (tmp_path / "vllm-0.11.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.11.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm)
    monkeypatch.setattr(fake_vllm.LLM, "opened", [])
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)  # so that the engine's own setting is undone
    return fake_vllm


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Five pictures; the fourth is cut short."""
    folder = tmp_path_factory.mktemp("pictures")
    chance = np.random.default_rng(1)
    for number in range(5):
        Image.fromarray(chance.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:900])
    return folder


def requests(pictures, numbers=range(5)):
    return [Request(f"id {number}", number, 0, pictures / f"{number}.png") for number in numbers]


def captions(folder, asked, seed=0, **settings):
    """Candidates by key."""
    settings = {"model": "any", "engine": "vllm", "max_new_tokens": 8, **settings}
    writer = VllmWriter(open_family(Captioner(**settings), folder, "cpu"), seed, Reading())
    return {request.key: answer for request, answer in writer.write(asked)}


@pytest.mark.parametrize("kind", SERVED)
def test_vllm_is_asked_by_the_familys_prompt_and_the_records_seeds(vllm, folders, pictures, kind):
    answers = captions(folders[kind], requests(pictures), candidates=2, batch=2, temperature=0.5)
    (engine,) = vllm.LLM.opened
    asked = [one for call in engine.calls for one in call]
    family = open_family(Captioner(model="any"), folders[kind], "cpu")

    assert engine.options == {
        "model": str(folders[kind]),
        "dtype": "bfloat16",
        "seed": 0,
        "limit_mm_per_prompt": {"image": 1},
        "load_format": "safetensors",
    }
    assert [len(call) for call in engine.calls] == [4, 2, 2]
    assert {prompt["prompt"] for prompt, _ in asked} == {family.prompt() or ""}
    assert [sampling.seed for _, sampling in asked] == [
        record_seed(0, f"id {number}", draw) for number in (0, 1, 2, 4) for draw in (0, 1)
    ]
    assert {(sampling.temperature, sampling.max_tokens, sampling.n) for _, sampling in asked} == {(0.5, 8, 1)}
    assert answers.pop("id 3") == "image unreadable"
    assert len({caption for answer in answers.values() for caption in answer}) == 8


def test_a_picture_that_vllm_raises_for_is_refused_by_name(vllm, folders, pictures, monkeypatch):
    generate = vllm.LLM.generate

    def raising(self, prompts, sampling, **options):
        if any(prompt["multi_modal_data"]["image"].size == (500, 1) for prompt in prompts):
            raise ValueError("absolute aspect ratio must be smaller than 200")
        return generate(self, prompts, sampling, **options)

    Image.new("RGB", (500, 1)).save(pictures / "5.png")
    whole = captions(folders["qwen2_vl"], requests(pictures, [0, 1, 2]))
    monkeypatch.setattr(vllm.LLM, "generate", raising)
    assert captions(folders["qwen2_vl"], requests(pictures, [0, 5, 1, 2])) == {"id 5": "image refused"} | whole

    monkeypatch.setattr(vllm.LLM, "generate", lambda *arguments, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # which no picture is to blame for
        captions(folders["qwen2_vl"], requests(pictures, [0, 1]))


def test_captions_are_the_words_before_the_end_token(vllm, folders, pictures):
    (answer,) = captions(folders["llava"], requests(pictures, [0]), sampling=False).values()
    family = open_family(Captioner(model="any"), folders["llava"], "cpu")
    ((prompt, sampling),) = vllm.LLM.opened[0].calls[0]
    (output,) = vllm.LLM.opened[0].generate([prompt], [sampling])
    *words, end = output.outputs[0].token_ids

    assert answer == [family.caption(words)]
    assert end in family.ends
    assert family.caption(words)


def test_greedy_has_temperature_zero_and_no_say_of_the_seed(vllm, folders, pictures):
    one, other = (captions(folders["llava"], requests(pictures), seed, sampling=False) for seed in (0, 1))

    assert one == other
    assert {sampling.temperature for engine in vllm.LLM.opened for call in engine.calls for _, sampling in call} == {0}


def test_the_models_own_settings_of_sampling_are_handed_on(vllm, folders, pictures):
    family = open_family(Captioner(model="any", engine="vllm"), folders["qwen2_vl"], "cpu")
    family.generation_config.update(top_k=7, top_p=0.9, repetition_penalty=1.05)
    list(VllmWriter(family, 0, Reading()).write(requests(pictures, [0])))
    ((_, sampling),) = vllm.LLM.opened[0].calls[0]

    assert (sampling.top_k, sampling.top_p, sampling.repetition_penalty) == (7, 0.9, 1.05)


@pytest.mark.parametrize("kind", SERVED + REFUSED)
def test_settings_read_without_weights_are_the_models(folders, kind):
    family = open_family(Captioner(model="any"), folders[kind], "cpu")
    asked = ("eos_token_id", "top_k", "top_p", "repetition_penalty")
    own = family.language_model.generation_config

    assert {name: getattr(family.generation_config, name) for name in asked} == {
        name: getattr(own, name) for name in asked
    }


@pytest.mark.parametrize("kind", REFUSED)
def test_models_that_vllm_does_not_serve_are_refused(vllm, folders, kind):
    with pytest.raises(GeneratorError, match=f"{kind}: vLLM does not serve this model .*set engine: transformers"):
        captions(folders[kind], [])


def configuration(folder, pictures, **settings):
    return Configuration.model_validate(
        {
            "pool": {"files": [{"path": "raw.jsonl", "name": "f"}], "images": str(pictures)},
            "models": {"any": {"path": str(folder)}},
            "captioners": {"writer": {"model": "any", "max_new_tokens": 8, **settings}},
            "datasets": {"new": {"from": "pool", "recaption": {"captioner": "writer", "seed": 0}}},
        }
    )


def recaptioner(folder, pictures, **settings):
    asked = configuration(folder, pictures, **settings)
    return Recaptioner("writer", 0, asked, ImageRoots(asked.pool, Layout(pictures)))


def test_records_are_made_by_the_engine_of_the_configuration(vllm, folders, pictures):
    records = [Record(f"id {number}", text_of("a red horse"), [f"{number}.png"]) for number in (0, 3)]
    maker = recaptioner(folders["llava"], pictures, engine="vllm")
    outcomes = {place: outcome for made in maker.make(records) for place, outcome in made.items()}
    (caption,) = captions(folders["llava"], requests(pictures, [0]))["id 0"]

    assert [record.text for record in outcomes[0].records] == [captioned_text(records[0].text, [caption])]
    assert outcomes[1].reason == "image unreadable"
    assert maker.facts["vllm"] == "0.11.0"
    assert maker.facts["captioner"]["engine"] == "vllm"
    assert "vllm" not in recaptioner(folders["llava"], pictures).facts


def test_missing_vllm_is_said_before_anything_is_opened(folders, pictures):
    with pytest.raises(GeneratorError, match=r"vllm is not installed here.*envs/torch-cuda\.txt.*engine: transformers"):
        recaptioner(folders["llava"], pictures, engine="vllm")


def test_another_engine_makes_another_source(folders, pictures, tmp_path):
    def decides(engine):
        asked = configuration(folders["llava"], pictures, engine=engine)
        return Jobs(asked, Layout(tmp_path))["recaption"].parameters("new", "new-0000")

    assert decides("vllm") != decides("transformers")

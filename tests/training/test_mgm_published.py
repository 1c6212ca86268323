"""Parity with the published MGM: the same numbers from the same weights, and weights in and out under its names."""

import json
import subprocess
import sys
from pathlib import Path

import published_mgm
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_mgm_model import REAL_CLIP, REAL_CONVNEXT, REAL_GEMMA
from tiny_mgm import make_tokenizer
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, ConvNextConfig, GemmaConfig

from bettersynth.runtime.patches.weights import WeightsError
from bettersynth.training.mgm.data import Collator
from bettersynth.training.mgm.model import IGNORE_INDEX, ConvNextTower, MGMConfig, MGMForConditionalGeneration
from bettersynth.training.mgm.processing import Encoded
from bettersynth.training.mgm.published import (
    PublishedWeightsError,
    convert_open_clip,
    export_published,
    import_published,
    published_name,
    timm_name,
)

ROOT = Path(__file__).parents[2]
CASES = published_mgm.golden()["cases"]


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """Folders of CLIP and of an OpenCLIP file, both of the golden file's sizes, with weights of their own."""
    folder = tmp_path_factory.mktemp("towers")
    CLIPVisionModel(CLIPVisionConfig(**published_mgm.CLIP)).save_pretrained(folder / "clip")
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16).save_pretrained(folder / "clip")
    prefix = "model.vision_tower_aux.vision_"
    state = published_mgm.published_state()
    trunk = {f"visual.trunk.{name.removeprefix(prefix)}": value for name, value in state.items() if prefix in name}
    trunk |= {"visual.trunk.head.norm.weight": torch.ones(10), "visual.head.mlp.fc1.weight": torch.ones(3, 10)}
    save_file(trunk | {"logit_scale": torch.ones(1)}, folder / "open_clip_model.safetensors")
    convert_open_clip(folder / "open_clip_model.safetensors", folder / "convnext")
    return {"vision_tower": folder / "clip", "vision_tower_aux": folder / "convnext"}


def make_published(folder, hidden_act="gelu", leave_out="lm_head"):
    """A folder as the published program writes it."""
    folder.mkdir()
    state = {name: value for name, value in published_mgm.published_state().items() if not name.startswith(leave_out)}
    names = sorted(state)
    for number, part in enumerate((names[::2], names[1::2])):
        save_file({name: state[name] for name in part}, folder / f"model-{number}.safetensors", {"format": "pt"})
    config = GemmaConfig(**published_mgm.LANGUAGE, hidden_act=hidden_act).to_dict() | {
        "model_type": "mgm_gemma",
        "image_size_aux": published_mgm.IMAGE_SIZE_AUX,
        "image_aspect_ratio": "pad",
        "mm_vision_select_layer": -2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["gelu", "gelu_pytorch_tanh"])
def imported(request, towers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("imported")
    source = make_published(folder / "published", hidden_act=request.param)
    import_published(source, folder / "ours", **towers)
    return request.param, MGMForConditionalGeneration.from_pretrained(folder / "ours").eval()


def batch_of(case):
    """The case as our collator makes it."""
    samples = []
    for number, ids, labels in zip(case["images"], case["input_ids"], case["labels"], strict=True):
        encoded = Encoded(torch.tensor(ids).numpy(), torch.tensor(labels).numpy()).expanded(16, case["max_length"])
        sample = {"input_ids": torch.tensor(encoded.input_ids), "labels": torch.tensor(encoded.labels)}
        sample["labels"][sample["input_ids"] < 0] = IGNORE_INDEX
        samples.append(sample | {"pixels": None if number is None else published_mgm.image(number)})
    return Collator(0, published_mgm.IMAGE_SIZE_AUX)(samples)


@pytest.mark.parametrize("name", dict.fromkeys(case["name"] for case in CASES))
def test_logits_and_loss_are_those_of_the_published_program(imported, name):
    activation, model = imported
    case = next(case for case in CASES if (case["name"], case["hidden_act"]) == (name, activation))
    batch = batch_of(case)
    with torch.no_grad():
        assert model(**batch).loss.item() == pytest.approx(case["loss"], abs=2e-5)
        logits = model(input_ids=batch["input_ids"], pixel_values=batch["pixel_values"]).logits
    for row, expected in zip(logits, case["logits"] or [], strict=False):
        torch.testing.assert_close(row[: len(expected)], torch.tensor(expected), rtol=0, atol=1e-4)


def test_the_golden_cases_would_notice_the_other_activation():
    losses = {(case["name"], case["hidden_act"]): case["loss"] for case in CASES}
    assert abs(losses["batch", "gelu"] - losses["batch", "gelu_pytorch_tanh"]) > 4e-5


def test_every_parameter_of_the_real_model_has_its_published_name():
    config = MGMConfig(REAL_GEMMA, REAL_CLIP, REAL_CONVNEXT, image_size_aux=768)
    with torch.device("meta"):
        model = MGMForConditionalGeneration(config)
    names = [published_name(name) for name in model.state_dict()]
    assert len(set(names)) == len(names)
    assert "model.vision_tower_aux.vision_stages.2.blocks.26.mlp.fc2.bias" in names
    assert "model.vlm_uni_aux_projector.1.weight" in names and "model.layers.17.mlp.up_proj.weight" in names
    tiny = MGMConfig(published_mgm.LANGUAGE, published_mgm.CLIP, published_mgm.CONVNEXT, image_size_aux=32)
    with torch.device("meta"):
        tiny_model = MGMForConditionalGeneration(tiny)
    shapes = {published_name(name): list(value.shape) for name, value in tiny_model.state_dict().items()}
    assert shapes == published_mgm.golden()["shapes"]


def test_what_goes_out_comes_back_the_same(towers, tmp_path):
    import_published(make_published(tmp_path / "published"), tmp_path / "ours", **towers)
    export_published(tmp_path / "ours", tmp_path / "again")
    state = {}
    for file in (tmp_path / "again").glob("*.safetensors"):
        state |= load_file(file)
    expected = published_mgm.published_state()
    assert state.keys() == expected.keys() - {"lm_head.weight"}
    assert all(torch.equal(state[name], expected[name]) for name in state)
    index = json.loads((tmp_path / "again" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == state.keys()
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert (config["model_type"], config["image_aspect_ratio"], config["hidden_act"]) == ("mgm_gemma", "pad", "gelu")
    import_published(tmp_path / "again", tmp_path / "back", **towers)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "back"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_original_tokenizer_goes_along_byte_by_byte(towers, tmp_path):
    """Written anew, `tokenizers` 0.15 of the published program could not read it."""
    source = make_published(tmp_path / "published")
    old = json.dumps(json.loads((source / "tokenizer.json").read_text()), indent=1) + "\n"
    (source / "tokenizer.json").write_text(old)
    (source / "tokenizer.model").write_bytes(b"sentencepiece")
    import_published(source, tmp_path / "ours", **towers)
    export_published(tmp_path / "ours", tmp_path / "again")
    for folder in ("ours", "again"):
        assert (tmp_path / folder / "tokenizer.json").read_text() == old
        assert (tmp_path / folder / "tokenizer.model").read_bytes() == b"sentencepiece"


def test_towers_that_a_checkpoint_lacks_come_from_their_folders(towers, tmp_path):
    source = make_published(tmp_path / "published", leave_out=("lm_head", "model.vision_tower"))
    import_published(source, tmp_path / "ours", **towers)
    model = MGMForConditionalGeneration.from_pretrained(tmp_path / "ours")
    clip = CLIPVisionModel.from_pretrained(towers["vision_tower"])
    assert all(torch.equal(a, b) for a, b in zip(model.vision_tower.parameters(), clip.parameters(), strict=True))


def test_the_converted_convnext_is_a_tower(towers):
    config = ConvNextConfig.from_pretrained(towers["vision_tower_aux"])
    assert config.hidden_sizes == [4, 6, 8, 10] and config.depths == [1, 1, 2, 1] and config.patch_size == 4
    tower = ConvNextTower.from_pretrained(towers["vision_tower_aux"])
    expected = published_mgm.published_state()
    for name, value in tower.state_dict().items():
        assert torch.equal(value, expected[f"model.vision_tower_aux.vision_{timm_name(name)}"])


def test_what_is_not_the_published_form_is_refused(towers, tmp_path):
    with pytest.raises(PublishedWeightsError, match="not OpenCLIP's ConvNeXt"):
        convert_open_clip(towers["vision_tower"] / "model.safetensors", tmp_path / "none")
    source = make_published(tmp_path / "published", leave_out=("model.mm_projector.2", "lm_head"))
    with pytest.raises(WeightsError, match=r"2 missing: model\.mm_projector\.2\.bias, model\.mm_projector\.2\.weight"):
        import_published(source, tmp_path / "ours", **towers)
    more = make_published(tmp_path / "more")
    save_file({"model.layers.2.mlp.up_proj.weight": torch.ones(2, 2)}, more / "model-2.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"1 unexpected: model\.layers\.2\.mlp"):
        import_published(more, tmp_path / "ours", **towers)
    for file in source.glob("*.safetensors"):
        file.unlink()
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(PublishedWeightsError, match="pickles"):
        import_published(source, tmp_path / "ours", **towers)
    assert not (tmp_path / "ours").exists()


def test_the_command_converts_and_does_not_overwrite(towers, tmp_path):
    source = towers["vision_tower"].parent / "open_clip_model.safetensors"
    command = [sys.executable, "-m", "bettersynth", "weights", "convnext", source, tmp_path / "convnext"]
    environment = {"PYTHONPATH": str(ROOT / "scripts"), "OMP_NUM_THREADS": "1"}
    assert subprocess.run(command, env=environment).returncode == 0
    assert (tmp_path / "convnext" / "model.safetensors").exists()
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode and "is there already" in again.stderr

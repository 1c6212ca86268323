"""OpenCLIP's ConvNeXt under transformers' names."""

import re

import pytest
import torch
from safetensors.torch import save_file
from transformers import ConvNextConfig, ConvNextModel

from bettersynth.hub import copy
from bettersynth.mgm.model import ConvNextTower
from bettersynth.mgm.openclip import convert_convnext

# transformers' names to those of timm 1.0.31, whose stages give the very same maps
TIMM = {
    r"embeddings\.patch_embeddings": "stem.0",
    r"embeddings\.layernorm": "stem.1",
    r"encoder\.stages\.(\d)\.downsampling_layer": r"stages.\1.downsample",
    r"encoder\.stages\.(\d)\.layers": r"stages.\1.blocks",
    r"\.dwconv": ".conv_dw",
    r"\.layernorm": ".norm",
    r"\.pwconv(\d)": r".mlp.fc\1",
    r"\.layer_scale_parameter": ".gamma",
}


@pytest.fixture
def model() -> ConvNextModel:
    torch.manual_seed(0)
    model = ConvNextModel(ConvNextConfig(hidden_sizes=[4, 6, 8, 10], depths=[2, 1, 3, 1], image_size=64))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def openclip(model: ConvNextModel) -> dict[str, torch.Tensor]:
    weights = {}
    for name, value in model.state_dict().items():
        for pattern, replacement in TIMM.items():
            name = re.sub(pattern, replacement, name)
        weights["visual.trunk." + re.sub(r"^layernorm", "head.norm", name)] = value
    return weights | {"visual.head.proj.weight": torch.zeros(3), "logit_scale": torch.zeros(1)}


def test_the_tower_gives_the_same_maps(model, tmp_path):
    save_file(openclip(model), tmp_path / "open_clip_model.safetensors")
    convert_convnext(tmp_path / "open_clip_model.safetensors", tmp_path / "convnext", 64)
    tower = ConvNextTower.from_pretrained(tmp_path / "convnext").eval()
    assert (tower.config.depths, tower.config.hidden_sizes, tower.config.image_size) == (
        [2, 1, 3, 1],
        [4, 6, 8, 10],
        64,
    )
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        coarsest = model(pixels).last_hidden_state
        assert torch.equal(tower.encoder(tower.embeddings(pixels)).last_hidden_state, coarsest)


def test_a_staged_copy_is_converted(model, tmp_path):
    save_file(openclip(model), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text("{}")
    copy(tmp_path, tmp_path / "models" / "convnext")
    tower = ConvNextTower.from_pretrained(tmp_path / "models" / "convnext").eval()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        coarsest = model(pixels).last_hidden_state
        assert torch.equal(tower.encoder(tower.embeddings(pixels)).last_hidden_state, coarsest)


def test_other_checkpoints_are_refused(model, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"visual.conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"no ConvNeXt below `visual\.trunk\.`"):
        convert_convnext(path, tmp_path / "convnext", 64)
    weights = openclip(model)
    weights["visual.trunk.stages.0.blocks.0.mlp.grn.weight"] = torch.zeros(1)
    del weights["visual.trunk.stages.0.blocks.0.gamma"]
    save_file(weights, path)
    with pytest.raises(ValueError, match=r"missing .*layer_scale_parameter.*not known .*grn"):
        convert_convnext(path, tmp_path / "convnext", 64)
    assert not (tmp_path / "convnext").exists()

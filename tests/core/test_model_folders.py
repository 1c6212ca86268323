"""Model folders that lack what is opened of them: named before anything is loaded, and indeed not to be opened."""

import json
import re
import shutil

import pytest
import tiny_diffusion
import tiny_models
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from bettersynth.core.model_files import folder_problems
from bettersynth.core.resources import StagingError
from bettersynth.deploy.hub import choose_files

pytestmark = pytest.mark.models
UNET = "diffusion_pytorch_model"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A pipeline of diffusers, and a model in several shards."""
    root = tmp_path_factory.mktemp("whole")
    clip = CLIPModel.from_pretrained(tiny_models.clip(root / "clip"))
    (root / "clip" / "model.safetensors").unlink()
    clip.save_pretrained(root / "clip", max_shard_size="100KB")
    return {"sharded": root / "clip", "pipeline": tiny_diffusion.stable_diffusion(root / "pipeline")}


def opened(folder):
    """Open it as the libraries do."""
    from diffusers import StableDiffusionPipeline

    kind = StableDiffusionPipeline if (folder / "model_index.json").exists() else CLIPModel
    return kind.from_pretrained(folder, local_files_only=True, use_safetensors=True)


def lose_shard(folder):
    next(folder.glob("model-00002-of-*.safetensors")).unlink()


def lose_index(folder):
    (folder / "model.safetensors.index.json").unlink()


def misplace(folder):
    """A shard under another's name: the index is right, and so is every file by itself."""
    first, second = sorted(folder.glob("model-0000[12]-of-*.safetensors"))
    shutil.copy(second, first)


def only_half(folder):
    (folder / "unet" / f"{UNET}.safetensors").rename(folder / "unet" / f"{UNET}.fp16.safetensors")


def only_pickle(folder):
    (folder / "vae" / f"{UNET}.safetensors").rename(folder / "vae" / f"{UNET}.bin")


def lose_part(folder):
    shutil.rmtree(folder / "text_encoder")


def lose_config(folder):
    (folder / "unet" / "config.json").unlink()


def lose_weights(folder):
    for file in folder.glob("model*"):
        file.unlink()


def lose_all(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("kind", "harm", "place", "said"),
    [
        ("sharded", lose_shard, "", r"not whole: model-00002-of-\d+\.safetensors not there"),
        ("sharded", lose_index, "", r"not whole: model\.safetensors\.index\.json not there"),
        ("sharded", misplace, "model-00001-of-", r"weights that model\.safetensors\.index\.json places in it"),
        ("sharded", lose_weights, "", r"no weights: no model\.safetensors"),
        ("sharded", lose_all, "", "empty"),
        ("pipeline", only_half, "unet", rf"only {UNET}\.fp16\.safetensors, which is not opened"),
        ("pipeline", only_pickle, "vae", rf"only {UNET}\.bin, which is not opened: no {UNET}\.safetensors"),
        ("pipeline", lose_part, "text_encoder", "not there, and model_index.json has it as CLIPTextModel"),
        ("pipeline", lose_config, "unet/config.json", "not there, and UNet2DConditionModel is opened by it"),
    ],
)
def test_what_a_folder_lacks_is_named_and_it_cannot_be_opened(whole, tmp_path, kind, harm, place, said):
    folder = tmp_path / "model"
    shutil.copytree(whole[kind], folder)
    assert list(folder_problems(folder)) == []
    harm(folder)
    ((path, problem),) = folder_problems(folder)
    assert path.relative_to(folder).as_posix().startswith(place or ".")
    assert re.search(said, problem), problem
    if harm is not misplace:  # which transformers opens, and makes up what is not there
        with pytest.raises((OSError, ValueError, AttributeError)):
            opened(folder)


def test_whole_folders_open(whole):
    assert all(opened(folder) for folder in whole.values())


def test_a_part_that_is_not_made_and_a_tokenizer_alone_are_whole(whole, tmp_path):
    assert list(folder_problems(tiny_diffusion.stable_diffusion_3(tmp_path / "three"))) == []
    shutil.copytree(whole["sharded"], tmp_path / "tokenizer")
    lose_weights(tmp_path / "tokenizer")
    assert list(folder_problems(tmp_path / "tokenizer", weights=False)) == []
    (tmp_path / "spacy").mkdir()
    (tmp_path / "spacy" / "meta.json").write_text(json.dumps({}))
    assert list(folder_problems(tmp_path / "spacy")) == []


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["model_index.json", "vae/config.json", f"vae/{UNET}.fp16.safetensors", f"unet/{UNET}.safetensors"],
            "vae: only",
        ),
        (["model-00001-of-00002.safetensors", "model.safetensors.index.json"], "model-00002-of-00002.safetensors not"),
    ],
)
def test_a_repository_is_refused_before_anything_is_fetched(names, said):
    with pytest.raises(StagingError, match=said):
        choose_files("models.x: tiny/x", names)


def test_weights_that_only_an_index_knows_are_read(whole, tmp_path):
    """Names of shards are the index's to choose."""
    shutil.copytree(whole["sharded"], tmp_path / "model")
    lose_weights(tmp_path / "model")
    state = {}
    for shard in whole["sharded"].glob("*.safetensors"):
        state |= load_file(shard)
    save_file(state, tmp_path / "model" / "all.safetensors", {"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(state, "all.safetensors")}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert list(folder_problems(tmp_path / "model")) == [] and opened(tmp_path / "model")

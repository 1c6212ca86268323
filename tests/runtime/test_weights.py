"""Models of every kind whose checkpoints are not whole: each is refused by the name of what is wrong, where it is."""

import ast
import copy
import re
import shutil
from pathlib import Path

import pytest
import tiny_diffusion
import tiny_mgm
import tiny_models
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, CLIPConfig, CLIPModel
from workflow import CONFIGURATION

from bettersynth.configuration.generators import Captioner, Redrawer
from bettersynth.configuration.operators import operator_spec
from bettersynth.configuration.pool import Model, Operator
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.inspect.opened import unopened
from bettersynth.runtime.patches.weights import WeightsError, headers_only
from bettersynth.training.mgm import checkpoints
from bettersynth.training.mgm.generation import Answerer
from bettersynth.training.mgm.model import MGMForConditionalGeneration

pytestmark = pytest.mark.models
ROOT = Path(__file__).parents[2]
WEIGHTS = "model.safetensors"


def change(file, drop=(), rename=(), shape=(), add=()):
    """Leave weights out of a file (by pattern), rename them, give them another shape, add some; all are in it."""
    state = load_file(file)
    for pattern in drop:
        lost = [name for name in state if re.match(pattern, name)]
        assert lost, pattern
        for name in lost:
            del state[name]
    for old, new in rename:
        state = {re.sub(old, new, name): value for name, value in state.items()}
    state |= {name: torch.zeros(3, *state[name].shape) for name in shape}
    state |= {name: torch.zeros(2) for name in add}
    save_file(state, file, {"format": "pt"})


def score_with(op):
    """Open a folder as the scorers do."""

    def opened(folder):
        from bettersynth.operators.base import load_own
        from bettersynth.operators.data_juicer import build

        operator, spec = Operator(op=op), operator_spec(op)
        if spec.ours:
            return load_own(operator, Model(path=str(folder)))
        return build(operator, Model(path=str(folder)), "cpu", spec.kind_class)

    return opened


def caption_with(folder):
    """Open a folder as captioners do."""
    from bettersynth.sources.captioners.families import open_family

    return open_family(Captioner(model="any"), folder, "cpu").model


def redraw_with(folder):
    """Open a folder as redrawers do."""
    from bettersynth.sources.redrawers import DiffusionModel

    return DiffusionModel(Redrawer(model="any", size=32, steps=2), folder, "cpu")


def classifier(folder):
    """A picture classifier."""
    return tiny_models.classifier(folder, seed=4)


CASES = {
    "blip": (tiny_models.blip_itm, score_with("image_text_matching_filter"), WEIGHTS, r"itm_head\."),
    "clip": (tiny_models.clip, score_with("image_text_similarity_filter"), WEIGHTS, r"text_projection\."),
    "vit": (classifier, score_with("image_nsfw_filter"), WEIGHTS, r"classifier\.weight"),
    "aesthetics": (tiny_models.aesthetics, score_with("image_aesthetics_filter"), WEIGHTS, r"layers\.0\.bias"),
    "owlvit": (tiny_models.owlvit, score_with("phrase_grounding_recall_filter"), WEIGHTS, r"class_head\."),
    "bert": (tiny_models.bert, score_with("text_embedding"), WEIGHTS, r"encoder\.layer\.1\."),
    "blip2": (tiny_models.blip2, caption_with, WEIGHTS, r"query_tokens"),
    "llava": (tiny_models.llava, caption_with, WEIGHTS, r".*multi_modal_projector\.linear_1\.weight"),
    "unet": (
        tiny_diffusion.stable_diffusion,
        redraw_with,
        "unet/diffusion_pytorch_model.safetensors",
        r"conv_out\.bias",
    ),
    "text encoder": (
        tiny_diffusion.stable_diffusion,
        redraw_with,
        "text_encoder/model.safetensors",
        r"text_model\.final_layer_norm\.bias",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_model_without_some_of_its_weights_is_refused(case, tmp_path):
    make, opened, file, lost = CASES[case]
    folder = make(tmp_path / "aesthetics-predictor-v2-linear")
    opened(folder)  # whole, as it was saved
    change(folder / file, drop=[lost])

    pattern = lost.removeprefix(".*")
    with pytest.raises(WeightsError, match=rf"{folder / Path(file).parent}: not the weights .* missing: .*{pattern}"):
        opened(folder)


@pytest.mark.parametrize("case", CASES)
def test_headers_tell_what_weights_would(case, tmp_path):
    make, opened, file, lost = CASES[case]
    folder = make(tmp_path / "aesthetics-predictor-v2-linear")
    with headers_only():
        opened(folder)
        change(folder / file, drop=[lost])
        with pytest.raises(WeightsError, match=f"missing: .*{lost.removeprefix('.*')}"):
            opened(folder)


def test_headers_have_no_values(tmp_path):
    with headers_only():
        opened = caption_with(tiny_models.blip2(tmp_path / "blip2"))
    assert {value.device.type for value in opened.state_dict().values()} == {"meta"}


def test_verify_names_the_model_that_its_class_does_not_open(tmp_path):
    """One of each kind: a scorer's, a captioner's, MGM's parts; nothing is said of those that are whole."""
    content = copy.deepcopy(CONFIGURATION) | {"name": "small"}
    for name, model in content["models"].items():
        shutil.copytree(model["path"], tmp_path / name)
        model["path"] = str(tmp_path / name)
    configuration, layout = Configuration.model_validate(content), Layout(tmp_path / "results" / "small")

    def problems(*skip):
        return {found.path.name: found.what for found in unopened(configuration, layout, None, "make stage", skip)}

    assert problems() == {}
    harmed = {"clip": r"text_projection\.", "blip2": r"qformer\.layernorm\.", "gemma": r"model\.layers\.1\."}
    for name, lost in harmed.items():
        change(tmp_path / name / WEIGHTS, drop=[lost])
    found = problems()
    assert found.keys() == harmed.keys()
    assert all(re.search(f"not the weights of .* missing: {harmed[name]}", found[name]) for name in harmed)
    assert problems(tmp_path / "clip" / "config.json").keys() == {"blip2"}  # that of MGM's parts is known


def test_weights_of_another_shape_and_others_are_named_together(tmp_path):
    folder = tiny_models.blip_itm(tmp_path / "blip")
    change(folder / WEIGHTS, shape=["itm_head.weight"], add=["lm_head.bias"])

    with pytest.raises(WeightsError) as refused:
        score_with("image_text_matching_filter")(folder)
    assert "1 unexpected: lm_head.bias; 1 of another shape: itm_head.weight (the class has 2 × " in str(refused.value)
    assert "make stage" in str(refused.value)


def test_an_encoder_may_lack_what_no_vector_is_made_of(tmp_path):
    whole = tiny_models.bert(tmp_path / "bert")
    trained = BertForMaskedLM(BertConfig.from_pretrained(whole))
    trained.bert.load_state_dict(load_file(whole / WEIGHTS), strict=False)  # its pooler has no place there
    trained.save_pretrained(whole.with_name("masked"))
    for file in whole.iterdir():
        if not (whole.with_name("masked") / file.name).exists():
            file.rename(whole.with_name("masked") / file.name)

    encoder = score_with("text_embedding")(whole.with_name("masked"))
    assert encoder.encode(["a dog", "a cat"]).shape[0] == 2


@pytest.fixture
def parts(tmp_path):
    return tiny_mgm.make_parts(tmp_path)


@pytest.mark.parametrize(
    ("part", "harm", "said"),
    [
        ("language_model", {"drop": [r"model\.layers\.1\."]}, r"GemmaForCausalLM.* 9 missing: model\.layers\.1\."),
        ("language_model", {"add": ["model.layers.2.mlp.up_proj.weight"]}, r"1 unexpected: model\.layers\.2\.mlp"),
        ("vision_tower", {"drop": [r".*position_embedding"]}, r"CLIPVisionModel.* 1 missing: .*position_embedding"),
        ("vision_tower_aux", {"rename": [("^", "trunk.")]}, r"ConvNextTower.* missing: .*; \d+ unexpected: trunk\."),
    ],
)
def test_a_part_of_mgm_that_is_not_whole_is_refused(parts, part, harm, said):
    change(parts[part] / WEIGHTS, **harm)

    with pytest.raises(WeightsError, match=said):
        MGMForConditionalGeneration.from_parts(**parts, image_size_aux=tiny_mgm.AUX_SIDE)


def test_a_whole_clip_has_a_vision_tower(parts, tmp_path):
    tower = MGMForConditionalGeneration.from_parts(**parts, image_size_aux=tiny_mgm.AUX_SIDE).vision_tower
    clip = CLIPModel(
        CLIPConfig(
            text_config={"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1},
            vision_config=tower.config.to_dict(),
        )
    )
    clip.vision_model.load_state_dict(tower.vision_model.state_dict())
    clip.save_pretrained(tmp_path / "whole")

    made = MGMForConditionalGeneration.from_parts(
        **{**parts, "vision_tower": tmp_path / "whole"}, image_size_aux=tiny_mgm.AUX_SIDE
    )
    assert all(torch.equal(a, b) for a, b in zip(made.vision_tower.parameters(), tower.parameters(), strict=True))


def test_a_trained_model_and_what_stages_hand_on_are_whole_or_refused(tmp_path):
    folder = tiny_mgm.make_talker(tmp_path)
    model = Answerer.open(folder, "fp32").model
    state = model.connector_state()
    lost = state.pop("projector.0.bias")
    with pytest.raises(WeightsError, match=r"results/a/connector\.safetensors: .* 1 missing: projector\.0\.bias"):
        model.load_connector(state, "results/a/connector.safetensors")
    with pytest.raises(WeightsError, match=r"1 of another shape: projector\.0\.bias"):
        model.load_connector(state | {"projector.0.bias": lost[:1]}, "results/a/connector.safetensors")

    model.requires_grad_(False).connector.requires_grad_(True)
    (tmp_path / "checkpoint-2").mkdir()
    save_file(
        {f"connector.{name}": value for name, value in state.items()}, tmp_path / "checkpoint-2" / checkpoints.WEIGHTS
    )
    with pytest.raises(WeightsError, match=r"checkpoint-2.* 1 missing: connector\.projector\.0\.bias"):
        checkpoints.load_weights(tmp_path / "checkpoint-2", model)

    change(folder / WEIGHTS, drop=[r"connector\.projector\.2\.weight"])
    with pytest.raises(WeightsError, match=r"1 missing: connector\.projector\.2\.weight"):
        Answerer.open(folder, "fp32")


def test_no_module_opens_a_model_another_way():
    """Configurations, tokenizers and processors have no weights; pipelines' parts are looked at as they open."""
    without = re.compile(r"config|tokenizer|processor|pipeline|super\(\)", re.IGNORECASE)
    found = []
    for path in (path for folder in ("scripts", "miniature", "bench") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "from_pretrained" and path.name != "weights.py":
                opened = ast.unparse(node.value)
                found += [] if without.search(opened) else [f"{path.relative_to(ROOT)}:{node.lineno}: {opened}"]
    assert found == []

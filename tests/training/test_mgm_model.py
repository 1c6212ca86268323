"""MGM's structure: sizes, patch info mining, visual tokens in the sequence, loss, saving."""

import math

import pytest
import torch
from tiny_mgm import AUX_SIDE, SIDE, VISUAL_TOKENS, make_parts
from torch._dynamo.utils import counters
from torch.nn import functional
from transformers import CLIPVisionModel, ConvNextModel
from transformers.models.convnext.modeling_convnext import ConvNextLayer

from bettersynth.training.mgm import model as mgm_model
from bettersynth.training.mgm.model import (
    IGNORE_INDEX,
    IMAGE_TOKEN_INDEX,
    DropPath,
    MGMConfig,
    MGMForConditionalGeneration,
)

REAL_GEMMA = {
    "hidden_size": 2048,
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "intermediate_size": 16384,
    "vocab_size": 256000,
}
REAL_CLIP = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
TINY = {"vocab_size": 32, "num_hidden_layers": 1, "hidden_size": 32, "head_dim": 2, "intermediate_size": 32}
REAL_CONVNEXT = {"hidden_sizes": [192, 384, 768, 1536], "depths": [3, 3, 27, 3]}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return make_parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture
def model(parts):
    return MGMForConditionalGeneration.from_parts(**parts, image_size_aux=AUX_SIDE, seed=3)


@pytest.fixture
def pixels():
    return torch.randn(2, 3, AUX_SIDE, AUX_SIDE, generator=torch.Generator().manual_seed(0))


def sequence(*words: int, visual: int = VISUAL_TOKENS) -> list[int]:
    return [2, *[IMAGE_TOKEN_INDEX] * visual, *words]


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_has_the_published_numbers_of_parameters_and_tokens():
    config = MGMConfig(REAL_GEMMA, REAL_CLIP, REAL_CONVNEXT, image_size_aux=768)
    with torch.device("meta"):
        model = MGMForConditionalGeneration(config)
    assert count(model) == 3_019_166_144
    assert count(model.connector) == 13_259_008
    assert count(model.vision_tower) == 303_507_456
    assert count(model.vision_tower_aux) == 196_227_264
    assert count(model.language_model) == 2_506_172_416
    assert config.visual_tokens == 576
    assert (config.aux_cells // config.grid) ** 2 == 64


def test_patch_info_mining_equals_attention_patch_by_patch(model):
    connector, generator = model.connector, torch.Generator().manual_seed(1)
    for parameter in connector.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    tokens = torch.randn(2, VISUAL_TOKENS, 24, generator=generator)
    aux_map = torch.randn(2, 28, 8, 8, generator=generator)
    mined = connector.mine(tokens, aux_map)
    for image in range(2):
        for patch in range(VISUAL_TOKENS):
            row, column = divmod(patch, 4)
            cells = aux_map[image, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten(1).T
            query = connector.query_projector(tokens[image, patch])
            weights = (connector.aux_projector(cells) @ query / math.sqrt(24)).softmax(0)
            expected = weights @ connector.val_projector(cells)
            torch.testing.assert_close(mined[image, patch], expected, rtol=1e-4, atol=1e-5)


def test_a_token_is_its_clip_feature_plus_what_it_mined(model, pixels):
    tokens, aux_map = model.see(pixels)
    expected = model.connector.projector(tokens + model.connector.mine(tokens, aux_map))
    torch.testing.assert_close(model.encode_images(pixels), expected)
    first, _, last = model.connector.projector
    by_hand = last(functional.gelu(first(tokens + model.connector.mine(tokens, aux_map)), approximate="none"))
    torch.testing.assert_close(expected, by_hand)


def test_towers_see_the_image_as_their_own_classes_do(model, parts, pixels):
    clip = CLIPVisionModel.from_pretrained(parts["vision_tower"])
    convnext = ConvNextModel.from_pretrained(parts["vision_tower_aux"])
    tokens, aux_map = model.see(pixels)
    small = functional.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    torch.testing.assert_close(tokens, clip(small, output_hidden_states=True).hidden_states[-2][:, 1:])
    stages = convnext(pixels, output_hidden_states=True).hidden_states[1:]
    widened = [functional.interpolate(stage, size=(8, 8), mode="bilinear", align_corners=False) for stage in stages]
    torch.testing.assert_close(aux_map, torch.cat(widened, 1))


def test_visual_tokens_are_scaled_by_gemma_like_words(model, pixels):
    seen = {}
    layer = model.language_model.model.layers[0]
    layer.register_forward_pre_hook(lambda _, args, kwargs: seen.update(x=args[0]), with_kwargs=True)
    model(input_ids=torch.tensor([sequence(9, 10)]), pixel_values=pixels[:1])
    expected = model.encode_images(pixels[:1])[0] * math.sqrt(32)
    torch.testing.assert_close(seen["x"][0, 1 : 1 + VISUAL_TOKENS], expected)


def test_images_seen_a_few_at_a_time_are_seen_the_same(model, pixels, monkeypatch):
    together = model.encode_images(pixels)
    seen = []
    model.vision_tower.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    monkeypatch.setattr(mgm_model, "PIXELS", AUX_SIDE**2)
    torch.testing.assert_close(model.encode_images(pixels), together)
    assert seen == [1, 1]


def test_logits_made_in_parts_give_the_same_loss_and_gradient(model, pixels, monkeypatch):
    ids = torch.tensor([sequence(9, 10, 11, 12, 13), sequence(12, 13, 9, 9, 10)])
    labels = ids.masked_fill(ids == IMAGE_TOKEN_INDEX, IGNORE_INDEX)
    found = []
    for positions in (mgm_model.POSITIONS, 3):
        monkeypatch.setattr(mgm_model, "POSITIONS", positions)
        model.zero_grad()
        loss = model(input_ids=ids, pixel_values=pixels, labels=labels).loss
        loss.backward()
        found.append((loss.detach(), model.get_input_embeddings().weight.grad.clone()))
    torch.testing.assert_close(*found)


def test_each_row_gets_its_own_image_and_a_cut_one_its_first_tokens(model, pixels):
    ids = torch.tensor([sequence(9, 9), [2, 9, 9, *[0] * (VISUAL_TOKENS)], sequence(visual=VISUAL_TOKENS + 2)])
    ids[2, -4:] = 0
    embeddings = model.embed(ids, pixels)
    visual = model.encode_images(pixels)
    torch.testing.assert_close(embeddings[0, 1 : 1 + VISUAL_TOKENS], visual[0])
    torch.testing.assert_close(embeddings[1], model.get_input_embeddings()(ids[1]))
    torch.testing.assert_close(embeddings[2, 1 : VISUAL_TOKENS - 1], visual[1, : VISUAL_TOKENS - 2])


def test_images_and_sequences_must_agree(model, pixels):
    with pytest.raises(ValueError, match="2 images for 1 sequences"):
        model(input_ids=torch.tensor([sequence(9)]), pixel_values=pixels)


def test_a_batch_of_text_alone_leaves_the_connector_a_gradient_of_zero(model):
    ids = torch.tensor([[2, 9, 10, 11]])
    model(input_ids=ids, pixel_values=torch.empty(0, 3, AUX_SIDE, AUX_SIDE), labels=ids).loss.backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.connector.parameters())


def test_loss_is_the_mean_over_labelled_tokens(model, pixels):
    ids = torch.tensor([sequence(9, 10, 11), sequence(12, 13, 0)])
    labels = torch.full_like(ids, IGNORE_INDEX)
    labels[0, -2:] = ids[0, -2:]
    labels[1, -2:-1] = ids[1, -2:-1]
    loss = model(input_ids=ids, pixel_values=pixels, labels=labels).loss
    logits = model(input_ids=ids, pixel_values=pixels).logits
    expected = functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX
    )
    torch.testing.assert_close(loss, expected)
    share = model(input_ids=ids, pixel_values=pixels, labels=labels, num_items_in_batch=6).loss
    torch.testing.assert_close(share, expected / 2)


def test_training_leaves_causality_to_the_attention_kernel(model, pixels, monkeypatch):
    seen, masks = model.see(pixels), []
    monkeypatch.setattr(model, "see", lambda pixels: seen)
    attend = functional.scaled_dot_product_attention

    def watched(*tensors, attn_mask=None, is_causal=False, **options):
        masks.append((attn_mask, is_causal))
        return attend(*tensors, attn_mask=attn_mask, is_causal=is_causal, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", watched)
    ids = torch.tensor([sequence(9, 10, 11), sequence(12, 13, 0)])
    model(input_ids=ids, pixel_values=pixels, labels=ids.clamp(min=0))
    assert masks and set(masks) == {(None, True)}


def test_padding_on_the_right_changes_nothing(model, pixels):
    short = model(input_ids=torch.tensor([sequence(9, 10)]), pixel_values=pixels[:1]).logits
    padded = model(input_ids=torch.tensor([sequence(9, 10, 0, 0, 0)]), pixel_values=pixels[:1]).logits
    torch.testing.assert_close(padded[:, : short.shape[1]], short)


def test_a_saved_model_gives_the_same_logits(model, pixels, tmp_path):
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    again = MGMForConditionalGeneration.from_pretrained(tmp_path, local_files_only=True)
    ids = torch.tensor([sequence(9, 10)])
    expected = model(input_ids=ids, pixel_values=pixels[:1]).logits
    torch.testing.assert_close(again(input_ids=ids, pixel_values=pixels[:1]).logits, expected, rtol=0, atol=0)
    assert again.config.image_size_aux == AUX_SIDE
    assert again.language_model.lm_head.weight is again.get_input_embeddings().weight


def test_the_seed_makes_the_connector_and_nothing_else(parts):
    def build(seed):
        return MGMForConditionalGeneration.from_parts(**parts, image_size_aux=AUX_SIDE, seed=seed).state_dict()

    first, same, other = build(1), build(1), build(2)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert {name.split(".")[0] for name in first if not torch.equal(first[name], other[name])} == {"connector"}


def test_connector_travels_from_one_stage_to_the_next(parts):
    first, second = (
        MGMForConditionalGeneration.from_parts(**parts, image_size_aux=AUX_SIDE, seed=seed) for seed in (1, 2)
    )
    second.load_connector(first.connector_state(), "connector.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_towers_stay_out_of_training_mode_unless_paths_are_dropped(parts, model, pixels):
    model.train()
    assert model.connector.training and not model.vision_tower.training and not model.vision_tower_aux.training
    torch.testing.assert_close(model.see(pixels), model.see(pixels), rtol=0, atol=0)
    dropping = MGMForConditionalGeneration.from_parts(**parts, image_size_aux=AUX_SIDE, drop_path=0.5).train()
    assert not dropping.vision_tower.training
    assert any(not torch.equal(dropping.see(pixels)[1], model.see(pixels)[1]) for _ in range(5))
    dropping.eval()
    torch.testing.assert_close(dropping.see(pixels), model.see(pixels))


def test_layers_of_a_kind_are_compiled_once_whatever_paths_they_drop(monkeypatch):
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *a, **k: compile_module(*a, **k, backend="eager"))

    def variants(depth):
        vision_aux = REAL_CONVNEXT | {"hidden_sizes": [8, 8, 8, 8], "depths": [2, 2, depth, 2], "drop_path_rate": 0.3}
        config = MGMConfig(REAL_GEMMA | TINY, REAL_CLIP | TINY, vision_aux, image_size_aux=768)
        model = MGMForConditionalGeneration(config).train()
        model.compile_layers()
        assert all(layer._compiled_call_impl for layer in model.modules() if isinstance(layer, ConvNextLayer))
        torch.compiler.reset()
        counters.clear()
        model.vision_tower_aux(torch.randn(2, 3, AUX_SIDE, AUX_SIDE))
        return counters["stats"]["unique_graphs"]

    assert 0 < variants(6) == variants(2)


def test_paths_are_dropped_at_their_rate_and_none_in_use():
    torch.manual_seed(0)
    dropping = DropPath(0.3, torch.device("cpu"))
    features = torch.full((20_000, 2, 3), 0.7)
    dropped = dropping(features)
    kept = dropped[:, 0, 0] != 0
    assert kept.float().mean() == pytest.approx(0.7, abs=0.02)
    torch.testing.assert_close(dropped[kept], torch.ones_like(dropped[kept]))
    assert not dropped[~kept].any()
    assert dropping.eval()(features) is features


def test_sizes_that_do_not_divide_are_refused(parts):
    with pytest.raises(ValueError, match=r"7 cells a side .*change training.architecture.image_size_aux"):
        MGMForConditionalGeneration.from_parts(**parts, image_size_aux=28)

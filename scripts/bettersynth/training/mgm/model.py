"""MGM (Mini-Gemini, Li et al. 2024, arXiv:2403.18814) with Gemma, on today's transformers.

An image is seen twice. A CLIP ViT looks at a small version and gives one token for each of its patches. A ConvNeXt
looks at a large version; *patch info mining* lets each token attend to the cells of the ConvNeXt's map that lie in
its own patch. A two-layer projector turns the tokens into the language model's input embeddings.

At the published sizes: 336 and 768 pixels, 576 tokens, 8 × 8 = 64 cells in each patch, 3,019,166,144 parameters, of
which the connector has 13,259,008.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    ConvNextConfig,
    ConvNextPreTrainedModel,
    GemmaConfig,
    GemmaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.convnext.modeling_convnext import (
    ConvNextDropPath,
    ConvNextEmbeddings,
    ConvNextEncoder,
    ConvNextLayer,
)
from transformers.models.gemma.modeling_gemma import GemmaDecoderLayer

from bettersynth.core.remedy import again
from bettersynth.runtime.patches.weights import check_weights, open_model

IGNORE_INDEX = -100
"""Label of a token that is not to be learned."""

IMAGE_TOKEN_INDEX = -200
"""Id, outside every vocabulary, at each position that a visual token will take."""


POSITIONS = 2048
"""Positions whose logits are in memory at once."""

PIXELS = 8 * 768 * 768
"""Pixels that the towers see at once: eight images at the published size."""

TEXT_TOWER = (r"text_model\.", r"(text|visual)_projection\.", r"logit_scale$")
"""Weights of a CLIP beside its vision tower."""

SubConfig = TypeVar("SubConfig", bound=PretrainedConfig)


class MGMConfig(PretrainedConfig):
    """Sizes of an MGM.

    `image_size_aux` is the side of the image that comes in; the CLIP's is made from it. `image_aspect` is how the
    model was last trained to see an oblong image: cut (`square`) or padded (`pad`).
    """

    model_type = "mgm"
    sub_configs = {  # noqa: RUF012
        "text_config": GemmaConfig,
        "vision_config": CLIPVisionConfig,
        "vision_config_aux": ConvNextConfig,
    }

    def __init__(
        self,
        text_config: GemmaConfig | dict[str, Any] | None = None,
        vision_config: CLIPVisionConfig | dict[str, Any] | None = None,
        vision_config_aux: ConvNextConfig | dict[str, Any] | None = None,
        image_size_aux: int = 768,
        image_aspect: str = "square",
        vision_select_layer: int = -2,
        **kwargs: Any,
    ) -> None:
        self.text_config = _sub_config(GemmaConfig, text_config)
        self.vision_config = _sub_config(CLIPVisionConfig, vision_config)
        self.vision_config_aux = _sub_config(ConvNextConfig, vision_config_aux)
        self.image_size_aux = image_size_aux
        self.image_aspect = image_aspect
        self.vision_select_layer = vision_select_layer
        super().__init__(**kwargs)

    @property
    def grid(self) -> int:
        """CLIP patches on a side of the image."""
        return self.vision_config.image_size // self.vision_config.patch_size

    @property
    def visual_tokens(self) -> int:
        """Positions that an image takes in the sequence."""
        return self.grid**2

    @property
    def aux_cells(self) -> int:
        """Cells on a side of the ConvNeXt's finest map."""
        return self.image_size_aux // self.vision_config_aux.patch_size


def _sub_config(kind: type[SubConfig], value: SubConfig | dict[str, Any] | None) -> SubConfig:
    return value if isinstance(value, kind) else kind(**(value or {}))


class ConvNextTower(ConvNextPreTrainedModel):
    """ConvNeXt without its head: the maps of all stages, brought to the size of the finest, as one."""

    _keys_to_ignore_on_load_unexpected = [r"^layernorm\.", r"^convnext\.layernorm\.", r"^classifier\."]  # type: ignore[assignment]  # noqa: RUF012

    def __init__(self, config: ConvNextConfig) -> None:
        super().__init__(config)
        self.embeddings = ConvNextEmbeddings(config)
        self.encoder = ConvNextEncoder(config)
        self.post_init()

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Image (n, 3, side, side) to map (n, sum of the stages' channels, cells, cells)."""
        cells = self.embeddings(pixel_values)
        maps = []
        for stage in self.encoder.stages:
            cells = stage(cells)
            maps.append(cells)
        return torch.cat([_resized(stage_map, maps[0].shape[-2:]) for stage_map in maps], dim=1)


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation, computed in fp32 in every precision: PyTorch does so, as the published code by hand."""
    if image.shape[-2:] == size:
        return image
    return functional.interpolate(image, size=size, mode="bilinear", align_corners=False)


class Connector(nn.Module):
    """What joins the towers to the language model: patch info mining and the projector; all that stage 1 trains.

    The modules are named as in the published checkpoints, which have them as `vlm_uni_*_projector` and `mm_projector`.
    """

    def __init__(self, config: MGMConfig) -> None:
        super().__init__()
        self.grid = config.grid
        width, width_aux = config.vision_config.hidden_size, sum(config.vision_config_aux.hidden_sizes)
        hidden = config.text_config.hidden_size
        self.query_projector = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.aux_projector = nn.Sequential(nn.LayerNorm(width_aux), nn.Linear(width_aux, width))
        self.val_projector = nn.Sequential(nn.LayerNorm(width_aux), nn.Linear(width_aux, width))
        self.projector = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))

    def forward(self, tokens: Tensor, aux_map: Tensor) -> Tensor:
        """CLIP tokens (n, tokens, width) and ConvNeXt map (n, channels, cells, cells) to (n, tokens, hidden)."""
        return self.projector(tokens + self.mine(tokens, aux_map))

    def mine(self, tokens: Tensor, aux_map: Tensor) -> Tensor:
        """What each token finds in its own patch of the ConvNeXt's map, of the shape of `tokens`.

        One head of attention, softmax(q kᵀ / √width) v, over the cells of the token's patch, with keys k = W n(x) + b
        and values alike, n being a LayerNorm. They are not computed cell by cell, for linear maps move out of the
        sums: q·(W x + b) = (q W)·x + q·b, and Σ a (W x + b) = W (Σ a x) + b as the weights a add up to 1. So the large
        matrices are applied once for each token instead of once for each of its (64) cells; and what is left to do
        for a cell, its normalisation without scale and shift, serves keys and values and needs no gradient.
        """
        with torch.autocast(aux_map.device.type, enabled=False):  # which would widen 64 cells a token to fp32
            cells = self.patches(aux_map)
            cells = functional.layer_norm(cells, cells.shape[-1:])
        query = self.query_projector(tokens)
        (key_norm, key_linear), (value_norm, value_linear) = self.aux_projector, self.val_projector
        key_query = query @ key_linear.weight
        scores = (cells @ (key_query * key_norm.weight)[..., None]).squeeze(-1)
        scores = scores + (key_query @ key_norm.bias + query @ key_linear.bias)[..., None]
        weights = (scores / query.shape[-1] ** 0.5).nan_to_num().softmax(-1)
        found = (weights[..., None, :] @ cells).squeeze(-2)
        return value_linear(found * value_norm.weight + value_norm.bias)

    def patches(self, aux_map: Tensor) -> Tensor:
        """Map (n, channels, cells, cells) to (n, tokens, cells of a patch, channels), both in reading order."""
        cells = aux_map.permute(0, 2, 3, 1)
        side = cells.shape[1] // self.grid
        cells = cells.unflatten(2, (self.grid, side)).unflatten(1, (self.grid, side))
        return cells.transpose(2, 3).flatten(3, 4).flatten(1, 2)


class DropPath(ConvNextDropPath):
    """Stochastic depth (Huang et al. 2016, arXiv:1603.09382) whose rate is no constant of the code.

    Every layer has another rate, and `torch.compile` would compile every one anew.
    """

    rate: Tensor

    def __init__(self, rate: float, device: torch.device) -> None:
        super().__init__(rate)
        self.register_buffer("rate", torch.tensor(rate, device=device), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """In training, each image's `features` (n, …) are zero at the rate, and otherwise larger by as much."""
        if not self.training:
            return features
        kept = torch.rand(len(features), device=features.device) >= self.rate
        scale = kept / (1 - self.rate)
        return features * scale.to(features.dtype).view(-1, *[1] * (features.ndim - 1))


class MGMForConditionalGeneration(PreTrainedModel):
    """Two frozen vision towers, a connector, and a Gemma.

    Gemma multiplies its input embeddings by √hidden inside its forward pass, whoever made them: so the visual tokens
    are scaled too, as in the published model.
    """

    config: MGMConfig
    config_class = MGMConfig
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _no_split_modules = ["GemmaDecoderLayer", "CLIPEncoderLayer", "ConvNextLayer"]  # noqa: RUF012
    _tied_weights_keys = ["language_model.lm_head.weight"]  # type: ignore[assignment]  # noqa: RUF012

    def __init__(self, config: MGMConfig) -> None:
        super().__init__(config)
        if config.aux_cells % config.grid:
            raise ValueError(
                f"the ConvNeXt's {config.aux_cells} cells a side (image_size_aux {config.image_size_aux} / patch size "
                f"{config.vision_config_aux.patch_size}) are no multiple of the CLIP's {config.grid} patches a side; "
                "change training.architecture.image_size_aux"
            )
        self.vision_tower = CLIPVisionModel(config.vision_config)
        self.vision_tower_aux = ConvNextTower(config.vision_config_aux)
        self.connector = Connector(config)
        self.language_model = GemmaForCausalLM(config.text_config)
        self.post_init()

    @classmethod
    def from_parts(
        cls,
        language_model: str | Path,
        vision_tower: str | Path,
        vision_tower_aux: str | Path,
        *,
        image_size_aux: int,
        image_aspect: str = "square",
        drop_path: float = 0.0,
        seed: int = 0,
    ) -> MGMForConditionalGeneration:
        """Put a model together from the folders of its three pretrained parts, in fp32.

        The connector is new: PyTorch's own initialisation (as published), from `seed`. `drop_path` is the largest
        rate of stochastic depth in the ConvNeXt, which grows linearly with depth.
        """
        config_aux = ConvNextConfig.from_pretrained(vision_tower_aux, local_files_only=True, drop_path_rate=drop_path)
        config = MGMConfig(
            GemmaConfig.from_pretrained(language_model, local_files_only=True),
            CLIPVisionConfig.from_pretrained(vision_tower, local_files_only=True),
            config_aux,
            image_size_aux=image_size_aux,
            image_aspect=image_aspect,
        )
        with torch.device("meta"):
            model = cls(config)
        fp32 = torch.float32
        model.language_model = open_model(GemmaForCausalLM, language_model, dtype=fp32)
        model.vision_tower = open_model(CLIPVisionModel, vision_tower, spare=TEXT_TOWER, dtype=fp32)
        model.vision_tower_aux = open_model(ConvNextTower, vision_tower_aux, config=config_aux, dtype=fp32)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model.connector = Connector(config)
        return model.eval()

    def _init_weights(self, module: nn.Module) -> None:
        """Leave PyTorch's own initialisation: the published connector has it, and the parts bring theirs."""

    def get_input_embeddings(self) -> nn.Module:
        """The language model's."""
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The language model's head, tied to its input embeddings."""
        return self.language_model.get_output_embeddings()

    def train(self, mode: bool = True) -> MGMForConditionalGeneration:
        """Training mode, in which the frozen towers stay as they are, but for a ConvNeXt with stochastic depth."""
        super().train(mode)
        self.vision_tower.eval()
        self.vision_tower_aux.train(mode and self.config.vision_config_aux.drop_path_rate > 0)
        return self

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Normalised images (n, 3, image_size_aux, image_size_aux) to visual tokens (n, visual_tokens, hidden).

        Some at a time: at the published sizes one image's ConvNeXt map is 212 MB in half precision.
        """
        at_once = max(1, PIXELS // self.config.image_size_aux**2)
        return torch.cat([self.connector(*self.see(some)) for some in pixel_values.split(at_once)])

    @torch.no_grad()
    def see(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """The frozen towers' view: tokens (n, visual_tokens, width) and map (n, channels, cells, cells).

        In the towers' own precision, as published: autocast would run every one of their norms in fp32.
        """
        with torch.autocast(pixel_values.device.type, enabled=False):
            return self._see(pixel_values.to(self.vision_tower.dtype))

    def _see(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        config = self.config
        if not len(pixel_values):  # which the CLIP does not bear, but a batch of text alone brings
            tokens = pixel_values.new_empty(0, config.visual_tokens, config.vision_config.hidden_size)
            channels = sum(config.vision_config_aux.hidden_sizes)
            return tokens, pixel_values.new_empty(0, channels, config.aux_cells, config.aux_cells)
        size = config.vision_config.image_size
        small = functional.interpolate(pixel_values, size=(size, size), mode="bilinear", align_corners=False)
        layers = self.vision_tower(small, output_hidden_states=True).hidden_states
        if pixel_values.is_cuda:  # a ConvNeXt's linear layers want channels last, and so does the GPU
            pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
        return layers[config.vision_select_layer][:, 1:], self.vision_tower_aux(pixel_values)

    def embed(self, input_ids: Tensor, pixel_values: Tensor | None = None) -> Tensor:
        """Input embeddings (batch, length, hidden), with visual tokens where `input_ids` is `IMAGE_TOKEN_INDEX`.

        `pixel_values` holds the images of the rows that have such positions, in the order of the rows. A row that
        was cut inside its image takes the first visual tokens.
        """
        is_visual = input_ids == IMAGE_TOKEN_INDEX
        embeddings = self.get_input_embeddings()(input_ids.masked_fill(is_visual, 0))
        if pixel_values is None:
            return embeddings
        visual = self.encode_images(pixel_values)
        counts = is_visual.sum(1)
        counts = counts[counts > 0]
        if len(counts) != len(visual):
            raise ValueError(f"{len(visual)} images for {len(counts)} sequences with an image")
        taken = torch.arange(visual.shape[1], device=visual.device) < counts[:, None]
        return embeddings.masked_scatter(is_visual[..., None], visual[taken].to(embeddings.dtype))

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of every position, or, given `labels` (batch, length), the loss.

        The loss is the cross entropy summed over the labelled tokens and divided by their number, or by
        `num_items_in_batch`, their number in the whole step, so that it does not depend on how a step is cut into
        forward passes. Logits are then computed only of positions whose next token is labelled, and not returned.
        """
        inputs_embeds = self.embed(input_ids, pixel_values)
        if labels is None:
            return self.language_model(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **kwargs)
        device = inputs_embeds.device.type
        if torch.is_autocast_enabled(device):  # or the sums between the layers would stay in the weights' fp32
            inputs_embeds = inputs_embeds.to(torch.get_autocast_dtype(device))
        if attention_mask is None:  # without one, transformers looks for packed sequences and writes a mask out
            attention_mask = torch.ones(inputs_embeds.shape[:2], dtype=torch.bool, device=inputs_embeds.device)
        hidden = self.language_model.model(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, use_cache=False, **kwargs
        ).last_hidden_state
        targets = labels[:, 1:]
        is_learned = targets != IGNORE_INDEX
        total = self._cross_entropy(hidden[:, :-1][is_learned], targets[is_learned])
        items = is_learned.sum() if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
        return CausalLMOutputWithPast(loss=total / items.clamp(min=1))  # type: ignore[arg-type]

    def _cross_entropy(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Sum over positions, `hidden` (positions, width) and `targets` (positions,).

        Some at a time: 256,000 logits in fp32 are 1 MB a position, so all but the last part's are made again for the
        backward pass instead of being kept.
        """

        def part(hidden: Tensor, targets: Tensor) -> Tensor:
            return functional.cross_entropy(self.language_model.lm_head(hidden).float(), targets, reduction="sum")

        *parts, last = zip(hidden.split(POSITIONS), targets.split(POSITIONS), strict=True)
        return sum([checkpoint(part, *pair, use_reentrant=False) for pair in parts], part(*last))

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Ids of the new tokens alone, (batch, new); `kwargs` as of transformers' `generate`."""
        return self.language_model.generate(  # type: ignore[return-value]
            inputs_embeds=self.embed(input_ids, pixel_values), attention_mask=attention_mask, **kwargs
        )

    def compile_layers(self) -> None:
        """Compile the layers of ConvNeXt and language model, each kind once for all its layers and sequence lengths."""
        # A ConvNeXt's stages, one image and several, with and without gradient: more than the usual 8 variants.
        torch._dynamo.config.recompile_limit = 32
        for layer in list(self.modules()):
            if isinstance(layer, ConvNextLayer) and isinstance(layer.drop_path, ConvNextDropPath):
                layer.drop_path = DropPath(layer.drop_path.drop_prob or 0.0, layer.dwconv.weight.device)
            if isinstance(layer, ConvNextLayer | GemmaDecoderLayer):
                layer.compile(dynamic=True)

    def connector_state(self) -> dict[str, Tensor]:
        """What stage 1 trained, in fp32 on the CPU."""
        return {name: value.detach().float().cpu().contiguous() for name, value in self.connector.state_dict().items()}

    def load_connector(self, state: dict[str, Tensor], source: str | Path) -> None:
        """Take over a `connector_state`, read from `source`. Raises WeightsError for one of another model."""
        remedy = f"Make it again: {again(source)}"
        check_weights(Connector, source, self.connector.state_dict(), state, remedy=remedy)
        self.connector.load_state_dict(state)

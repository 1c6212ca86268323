"""Tiny pipelines of diffusers with random weights; see `tiny_models`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_models import SIDE, clip_text_config, clip_tokenizer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer


def _vae(latent_channels: int = 4, **more: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=latent_channels,
        norm_num_groups=8,
        sample_size=SIDE,
        **more,
    )


def _unet(**more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        norm_num_groups=8,
        sample_size=SIDE // 2,
        **{"cross_attention_dim": 32, **more},
    )


def stable_diffusion(folder: Path) -> Path:
    """Stable Diffusion's text-to-image pipeline, as version 1 is published, without a safety checker."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    tokenizer = clip_tokenizer(folder / "tokenizer", kind=CLIPTokenizer)
    torch.manual_seed(8)
    pipeline = StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(CLIPTextConfig(**clip_text_config(tokenizer))),
        tokenizer=tokenizer,
        unet=_unet(),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def stable_diffusion_xl(folder: Path) -> Path:
    """Stable Diffusion XL, whose two text encoders see one tokenizer here."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    tokenizer = clip_tokenizer(folder / "tokenizer", kind=CLIPTokenizer)
    text = CLIPTextConfig(**clip_text_config(tokenizer), projection_dim=32)
    torch.manual_seed(9)
    pipeline = StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(text),
        text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=_unet(
            cross_attention_dim=64,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 32,
        ),
        scheduler=EulerDiscreteScheduler(steps_offset=1, timestep_spacing="trailing"),
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def stable_diffusion_3(folder: Path) -> Path:
    """Stable Diffusion 3, without its optional T5 encoder."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    tokenizer = clip_tokenizer(folder / "tokenizer", kind=CLIPTokenizer)
    text = CLIPTextConfig(**clip_text_config(tokenizer), projection_dim=32)
    torch.manual_seed(10)
    pipeline = StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=SIDE // 2,
            patch_size=2,
            in_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=64,
            pooled_projection_dim=64,
            out_channels=4,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=CLIPTextModelWithProjection(text),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipeline.save_pretrained(folder)
    return folder

"""The miniature's models, untrained: classes of the real models, in the sizes of a world of 96 pixels.

Every function returns a `Folder`: the model, and what else its folder holds (processor, tokenizer), so that
`from_pretrained` and Data-Juicer's operators open it as they open the real one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from aesthetics_predictor import AestheticsPredictorV2Linear
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionImg2ImgPipeline, UNet2DConditionModel
from torch import nn
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipConfig,
    BlipForImageTextRetrieval,
    BlipImageProcessor,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    ConvNextConfig,
    ConvNextModel,
    GemmaConfig,
    GemmaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessor,
    OwlViTProcessor,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from miniature import questions, tokenizers
from miniature.defects import SPOILT_VOCABULARY
from miniature.material import PATCH
from miniature.world import SIZE, WORDS

AUX_SIZE = 96
"""Side of the picture that the ConvNeXt sees: 3 × 3 of its first stage's cells in each CLIP patch."""
QUERIES = 16
"""Query tokens of BLIP-2's Q-Former."""

LLAVA_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


@dataclass
class Folder:
    """A model and what lies beside it in its folder."""

    model: Any
    beside: tuple[Any, ...] = ()
    superfluous: tuple[str, ...] = ()
    """Files that saving leaves and nobody reads."""

    def save(self, folder: Path) -> None:
        """Write the folder: weights in half precision as safetensors, then processors and tokenizers."""
        folder.mkdir(parents=True, exist_ok=True)
        is_pipeline = isinstance(self.model, StableDiffusionImg2ImgPipeline)
        half = self.model.to(torch.float16) if is_pipeline else self.model.half()
        half.save_pretrained(folder, safe_serialization=True)
        for part in self.beside:
            part.save_pretrained(folder)
        for path in folder.rglob("tokenizer.json"):
            compact = json.dumps(
                json.loads(path.read_text(encoding="utf-8")), ensure_ascii=False, separators=(",", ":")
            )
            path.write_text(compact, encoding="utf-8")
        for name in self.superfluous:
            (folder / name).unlink(missing_ok=True)
        half.to(torch.float32) if is_pipeline else self.model.float()


def _transformer(width: int, depth: int, **other: Any) -> dict[str, Any]:
    """Settings that the vision and text transformers of CLIP, BLIP, OWL-ViT and ViT share."""
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": depth,
        "num_attention_heads": width // 32,
        **other,
    }


def _image(width: int, depth: int, **other: Any) -> dict[str, Any]:
    return _transformer(width, depth, image_size=SIZE, patch_size=PATCH, **other)


def _ids(tokenizer: Any) -> dict[str, int]:
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _clip_image_processor(side: int = SIZE) -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def clip(words: list[str]) -> Folder:
    """CLIP of 1.7 M parameters; its scores are cosines, for its logit scale is 100."""
    tokenizer = tokenizers.clip_tokenizer(words)
    vision = _image(128, 4, projection_dim=128)
    text = _transformer(128, 4, projection_dim=128, max_position_embeddings=77, **_ids(tokenizer))
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=128)
    return Folder(CLIPModel(config), (CLIPProcessor(_clip_image_processor(), tokenizer),))


def blip_itm(words: list[str]) -> Folder:
    """BLIP with the image-text matching head."""
    tokenizer = tokenizers.bert_tokenizer(words)
    text = _transformer(
        128,
        3,
        encoder_hidden_size=128,
        projection_dim=128,
        max_position_embeddings=128,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        sep_token_id=tokenizer.sep_token_id,
    )
    vision = _image(128, 4, initializer_range=0.02)  # BLIP's own default, 1e-10, is for weights that are loaded
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=128, image_text_hidden_size=128)
    processor = BlipProcessor(BlipImageProcessor(size={"height": SIZE, "width": SIZE}), tokenizer)
    return Folder(BlipForImageTextRetrieval(config), (processor,))


def aesthetics(words: list[str]) -> Folder:
    """simple-aesthetics-predictor's V2 linear head on a small CLIP vision tower; the score runs from 0 to 10."""
    processor = CLIPProcessor(_clip_image_processor(), tokenizers.clip_tokenizer(words))
    return Folder(AestheticsPredictorV2Linear(CLIPVisionConfig(**_image(64, 4, projection_dim=64))), (processor,))


def classifier(positive: str, negative: str) -> Folder:
    """A ViT of two classes; index 1, the one that Data-Juicer reads, is `positive`."""
    config = ViTConfig(
        **_image(64, 4),
        id2label={0: negative, 1: positive},
        label2id={negative: 0, positive: 1},
        hidden_dropout_prob=0.0,
    )
    return Folder(ViTForImageClassification(config), (ViTImageProcessor(size={"height": SIZE, "width": SIZE}),))


def owlvit(words: list[str]) -> Folder:
    """OWL-ViT with an 8 × 8 grid of boxes and queries of at most 16 tokens."""
    tokenizer = tokenizers.clip_tokenizer(words, max_length=16)
    text = _transformer(128, 2, max_position_embeddings=16, **_ids(tokenizer) | {"pad_token_id": 0})
    tokenizer.pad_token = "!"
    config = OwlViTConfig(text_config=text, vision_config=_image(128, 4), projection_dim=128)
    image_processor = OwlViTImageProcessor(
        size={"height": SIZE, "width": SIZE}, crop_size={"height": SIZE, "width": SIZE}, do_center_crop=False
    )
    return Folder(OwlViTForObjectDetection(config), (OwlViTProcessor(image_processor, tokenizer),))


def blip2(words: list[str]) -> Folder:
    """BLIP-2 with a Q-Former and an OPT whose vocabulary reaches to Data-Juicer's image token, 50265."""
    tokenizer = tokenizers.opt_tokenizer(words)
    opt = {
        "model_type": "opt",
        "hidden_size": 64,
        "word_embed_proj_dim": 64,
        "ffn_dim": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "dropout": 0.0,
        **_ids(tokenizer),
        "vocab_size": tokenizers.OPT_IMAGE_ID + 1,
    }
    qformer = _transformer(
        128,
        2,
        encoder_hidden_size=128,
        cross_attention_frequency=1,
        vocab_size=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    config = Blip2Config(
        vision_config=_image(128, 4, initializer_range=0.02),
        qformer_config=qformer,
        text_config=opt,
        num_query_tokens=QUERIES,
        image_token_index=tokenizers.OPT_IMAGE_ID,
    )
    image_processor = BlipImageProcessor(size={"height": SIZE, "width": SIZE})
    processor = Blip2Processor(image_processor, tokenizer, num_query_tokens=QUERIES)
    return Folder(Blip2ForConditionalGeneration(config), (processor,), ("vocab.json", "merges.txt"))


def llava(words: list[str]) -> Folder:
    """LLaVA: CLIP's last-but-one layer, a two-layer projector and a small Llama."""
    tokenizer = tokenizers.llama_tokenizer(words)
    llama = {
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        **_ids(tokenizer),
    }
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **_image(128, 4, projection_dim=128)},
        text_config=llama,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(SIZE // PATCH) ** 2,
        tie_word_embeddings=True,
    )
    processor = LlavaProcessor(
        _clip_image_processor(),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_CHAT_TEMPLATE,
    )
    model: Any = LlavaForConditionalGeneration(config)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return Folder(model, (processor,))


def diffusion(words: list[str]) -> Folder:
    """Stable Diffusion's image-to-image pipeline at 96 pixels, with latents of 24 × 24."""
    tokenizer = tokenizers.clip_tokenizer(words)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIZE,
    )
    unet = UNet2DConditionModel(
        sample_size=SIZE // 4,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(48, 64, 96),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=4,
        cross_attention_dim=96,
    )
    text = CLIPTextModel(CLIPTextConfig(**_transformer(96, 2, max_position_embeddings=77, **_ids(tokenizer))))
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipeline = StableDiffusionImg2ImgPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return Folder(pipeline)


def convnext() -> Folder:
    """MGM's second tower: four stages at 24, 12, 6 and 3 cells a side."""
    config = ConvNextConfig(hidden_sizes=[32, 64, 96, 128], depths=[1, 2, 2, 1], image_size=AUX_SIZE)
    return Folder(ConvNextModel(config), (_clip_image_processor(AUX_SIZE),))


def gemma(words: list[str]) -> Folder:
    """MGM's language model: a Gemma with one key-value head, GeGLU and tied embeddings."""
    tokenizer = tokenizers.gemma_tokenizer(words)
    config = GemmaConfig(
        hidden_size=96,
        intermediate_size=288,
        num_hidden_layers=4,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=2048,
        hidden_activation="gelu_pytorch_tanh",
        **_ids(tokenizer),
    )
    return Folder(GemmaForCausalLM(config), (tokenizer,))


def parameters(model: Any) -> int:
    """Number of parameters of a model or a diffusion pipeline."""
    pipeline = isinstance(model, StableDiffusionImg2ImgPipeline)
    parts = [part for part in model.components.values() if isinstance(part, nn.Module)] if pipeline else [model]
    return sum(p.numel() for part in parts for p in part.parameters())


def language() -> list[str]:
    """Every word that a model of the miniature knows: in lower case, and as a sentence begins where one may."""
    words = {
        *questions.VOCABULARY,
        *SPOILT_VOCABULARY,
        "user",
        "model",
        "assistant",
        "detail",
        "detailed",
        "yes",
        "no",
        "new",
    }
    capitalised = {word.capitalize() for word in words if word not in WORDS}
    return sorted({*words, *capitalised, "USER", "ASSISTANT", "OCR"})

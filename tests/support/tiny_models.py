# ruff: noqa: E402 - torchvision must be hidden before transformers looks for it
"""Tiny models with random weights, of the very classes that operators and generators load.

Their folders are saved by `save_pretrained`, so that they open as published checkpoints do. Weights come from fixed
seeds and are spread widely enough for scores to differ from image to image.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.modules.setdefault("torchvision", None)  # as bettersynth.runtime.patches does

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BartConfig,
    BartTokenizerFast,
    BertConfig,
    BertModel,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Blip2QFormerConfig,
    BlipConfig,
    BlipForImageTextRetrieval,
    BlipImageProcessor,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizerFast,
    CLIPVisionConfig,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
    OPTConfig,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessor,
    OwlViTProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2TokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    T5Config,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)
from transformers.models.bert import BertTokenizerFast
from transformers.models.clip.tokenization_clip import bytes_to_unicode

from bettersynth.runtime.patches.transformers import image_only

SIDE = 32
WORDS = [
    *("a", "the", "of", "on", "in", "with", "and", "one", "two", "three"),
    *(
        "man",
        "woman",
        "dog",
        "cat",
        "horse",
        "bird",
        "house",
        "tree",
        "car",
        "beach",
        "table",
        "sky",
        "water",
        "street",
    ),
    *("ball", "boat", "mountain", "flower", "photo", "picture", "sign", "stock"),
    *("red", "blue", "green", "yellow", "big", "small", "riding", "sitting", "running", "holding"),
]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _save(folder: Path, *parts: Any) -> Path:
    for part in parts:
        part.save_pretrained(folder)
    return folder


def _seeded(make: type, config: Any, seed: int, spread: float = 0.15) -> Any:
    """A model with normally distributed matrices; the library's own start leaves all scores alike."""
    torch.manual_seed(seed)
    model = make(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=spread)
    return model.eval()


def _clip_vocabulary(folder: Path) -> tuple[Path, Path]:
    letters = list(bytes_to_unicode().values())
    tokens = letters + [letter + "</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({token: number for number, token in enumerate(tokens)}), encoding="utf-8")
    merges.write_text("#version: 0.2\n", encoding="utf-8")
    return vocabulary, merges


def clip_tokenizer(folder: Path, length: int = 64, kind: type = CLIPTokenizerFast) -> Any:
    """CLIP's tokenizer of single letters, written into the folder."""
    vocabulary, merges = _clip_vocabulary(folder)
    return kind(str(vocabulary), str(merges), model_max_length=length)


def _clip_image_processor() -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


def clip_text_config(tokenizer: Any, length: int = 64) -> dict[str, Any]:
    """Settings of a text encoder for the tokenizer."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _vision_config(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 8,
        **more,
    }


def clip(folder: Path) -> Path:
    """CLIP for `image_text_similarity_filter`."""
    tokenizer = clip_tokenizer(folder)
    config = CLIPConfig(text_config=clip_text_config(tokenizer), vision_config=_vision_config(), projection_dim=16)
    return _save(folder, _seeded(CLIPModel, config, 1), CLIPProcessor(_clip_image_processor(), tokenizer))


def _bert_tokenizer(folder: Path) -> BertTokenizerFast:
    folder.mkdir(parents=True)
    vocabulary = folder / "vocab.txt"
    pieces = [*LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", *WORDS, *pieces]
    vocabulary.write_text("\n".join(dict.fromkeys(tokens)) + "\n", encoding="utf-8")
    return BertTokenizerFast(str(vocabulary), model_max_length=64)


def blip_itm(folder: Path) -> Path:
    """BLIP for `image_text_matching_filter`."""
    tokenizer = _bert_tokenizer(folder)
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "encoder_hidden_size": 32,
        "intermediate_size": 64,
        "projection_dim": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    }
    config = BlipConfig(text_config=text, vision_config=_vision_config(), projection_dim=16, image_text_hidden_size=16)
    images = BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    return _save(folder, _seeded(BlipForImageTextRetrieval, config, 2), BlipProcessor(images, tokenizer))


def bert(folder: Path) -> Path:
    """BERT, a sentence encoder for `text_embedding`."""
    tokenizer = _bert_tokenizer(folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    return _save(folder, _seeded(BertModel, config, 15), tokenizer)


def aesthetics(folder: Path) -> Path:
    """Aesthetics predictor, version 2, linear."""
    from aesthetics_predictor import AestheticsPredictorV2Linear

    config = CLIPVisionConfig(**_vision_config(projection_dim=16))
    processor = CLIPProcessor(_clip_image_processor(), clip_tokenizer(folder))
    return _save(folder, _seeded(AestheticsPredictorV2Linear, config, 3), processor)


def classifier(folder: Path, seed: int) -> Path:
    """ViT with two classes, for `image_watermark_filter` and `image_nsfw_filter`."""
    config = ViTConfig(**_vision_config(), num_labels=2)
    images = ViTImageProcessor(size={"height": SIDE, "width": SIDE})
    return _save(folder, _seeded(ViTForImageClassification, config, seed), images)


def owlvit(folder: Path) -> Path:
    """OWL-ViT for `phrase_grounding_recall_filter`."""
    tokenizer = clip_tokenizer(folder, length=16)
    text = {**clip_text_config(tokenizer, 16), "pad_token_id": 0}
    config = OwlViTConfig(text_config=text, vision_config=_vision_config(), projection_dim=32)
    images = OwlViTImageProcessor(size={"height": SIDE, "width": SIDE})
    return _save(folder, _seeded(OwlViTForObjectDetection, config, 5), OwlViTProcessor(images, tokenizer))


def _word_tokenizer(*special: str, kind: type = PreTrainedTokenizerFast, **named: str) -> Any:
    """Words and, for what is not among them, letters; decoding gives words with blanks between.

    `named` special tokens become attributes of the tokenizer, which some processors read.
    """
    special = (*special, *named.values())
    tokens = ["<pad>", "<s>", "</s>", "<unk>", *special, *(f"Ġ{word}" for word in WORDS), *LETTERS, "Ġ", ":", "."]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    inner.decoder = decoders.ByteLevel()
    return kind(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=list(special),
        extra_special_tokens=named,
        model_input_names=["input_ids", "attention_mask"],
    )


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
CHAT = (
    "{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE {% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


def _speaking(model: Any, tokenizer: Any) -> Any:
    """The model, made to say something before it ends: the end token is no more likely than any other."""
    with torch.no_grad():
        model.get_output_embeddings().weight[tokenizer.eos_token_id] = 0
    return model


def _blip2(folder: Path, tokenizer: Any, text: Any) -> Path:
    config = Blip2Config(
        vision_config=_vision_config(),
        qformer_config=Blip2QFormerConfig(
            **SIZES, vocab_size=32, encoder_hidden_size=32, cross_attention_frequency=1
        ).to_dict(),
        text_config=text.to_dict(),
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    images = BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    processor = Blip2Processor(images, tokenizer, num_query_tokens=4)
    return _save(folder, _speaking(_seeded(Blip2ForConditionalGeneration, config, 6), tokenizer), processor)


def blip2(folder: Path) -> Path:
    """BLIP-2 with an OPT language model."""
    tokenizer = _word_tokenizer("<image>")
    text = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        word_embed_proj_dim=32,
        max_position_embeddings=128,
        **ENDS,
    )
    return _blip2(folder, tokenizer, text)


def blip2_t5(folder: Path) -> Path:
    """BLIP-2 with a T5 language model."""
    tokenizer = _word_tokenizer("<image>")
    text = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        tie_word_embeddings=False,
        **ENDS,
    )
    return _blip2(folder, tokenizer, text)


def _llama(tokenizer: Any) -> LlamaConfig:
    return LlamaConfig(**SIZES, **ENDS, vocab_size=len(tokenizer), num_key_value_heads=2)


def _llava(folder: Path, model: type, config: type, processor: type, images: Any, **options: Any) -> Path:
    tokenizer = _word_tokenizer("<image>", "USER:", "ASSISTANT:")
    settings = config(
        vision_config=CLIPVisionConfig(**_vision_config()),
        text_config=_llama(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        **options,
    )
    whole = processor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=CHAT.replace("IMAGE", "<image>"),
    )
    return _save(folder, _seeded(model, settings, 7), whole)


def llava(folder: Path) -> Path:
    """LLaVA with a Llama language model and a chat template."""
    return _llava(folder, LlavaForConditionalGeneration, LlavaConfig, LlavaProcessor, _clip_image_processor())


def llava_next(folder: Path) -> Path:
    """LLaVA-NeXT, which sees an image in more or fewer tiles by its shape."""
    pinpoints = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
    square = {"height": SIDE, "width": SIDE}
    images = LlavaNextImageProcessor(size={"shortest_edge": SIDE}, crop_size=square, image_grid_pinpoints=pinpoints)
    return _llava(
        folder,
        LlavaNextForConditionalGeneration,
        LlavaNextConfig,
        LlavaNextProcessor,
        images,
        image_grid_pinpoints=pinpoints,
    )


def _qwen(folder: Path, model: type, config: type, processor: type, vision: dict[str, Any]) -> Path:
    tokenizer = _word_tokenizer(
        *("USER:", "ASSISTANT:", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
        kind=Qwen2TokenizerFast,
    )
    ids = tokenizer.convert_tokens_to_ids
    settings = config(
        vision_config={"depth": 2, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, **vision},
        text_config={
            **SIZES,
            **ENDS,
            "vocab_size": len(tokenizer),
            "num_key_value_heads": 1,
            "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        **ENDS,
    )
    images = Qwen2VLImageProcessor(patch_size=4, merge_size=2, min_pixels=8 * 8 * 4, max_pixels=8 * 8 * 16)
    whole = image_only(processor)(
        images, tokenizer, chat_template=CHAT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    )
    return _save(folder, _seeded(model, settings, 11), whole)


def qwen2_vl(folder: Path) -> Path:
    """Qwen2-VL, whose images take as many tokens as they have pixels for."""
    vision = {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
    return _qwen(folder, Qwen2VLForConditionalGeneration, Qwen2VLConfig, Qwen2VLProcessor, vision)


def qwen2_5_vl(folder: Path) -> Path:
    """Qwen2.5-VL, whose vision tower attends in windows."""
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": 32,
        "window_size": 16,
        "fullatt_block_indexes": [1],
    }
    return _qwen(folder, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLConfig, Qwen2_5_VLProcessor, vision)


def internvl(folder: Path) -> Path:
    """InternVL with a Qwen2 language model."""
    tokenizer = _word_tokenizer(
        *("USER:", "ASSISTANT:"),
        kind=Qwen2TokenizerFast,
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = InternVLConfig(
        vision_config={**_vision_config(), "image_size": [SIDE, SIDE], "patch_size": [8, 8]},
        text_config={**SIZES, **ENDS, "model_type": "qwen2", "vocab_size": len(tokenizer), "num_key_value_heads": 1},
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=4,
        **ENDS,
    )
    images = GotOcr2ImageProcessor(size={"height": SIDE, "width": SIDE}, crop_to_patches=True, max_patches=4)
    whole = image_only(InternVLProcessor)(
        images, tokenizer, image_seq_length=4, chat_template=CHAT.replace("IMAGE", "<IMG_CONTEXT>\n")
    )
    return _save(folder, _seeded(InternVLForConditionalGeneration, config, 12), whole)


def florence2(folder: Path) -> Path:
    """Florence-2: DaViT and BART, asked by task tokens."""
    tokenizer = _word_tokenizer(kind=BartTokenizerFast, image_token="<image>")
    config = Florence2Config(
        text_config=BartConfig(
            vocab_size=len(tokenizer),
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=128,
            decoder_start_token_id=2,
            forced_eos_token_id=None,
            **ENDS,
        ).to_dict(),
        vision_config={
            "depths": [1, 1, 1, 1],
            "embed_dim": [8, 8, 16, 32],
            "num_heads": [1, 1, 2, 2],
            "num_groups": [1, 1, 2, 2],
            "window_size": 4,
            "projection_dim": 32,
        },
        image_token_id=tokenizer.image_token_id,
        **ENDS,
    )
    images = CLIPImageProcessor(
        size={"height": SIDE, "width": SIDE}, do_center_crop=False, crop_size={"height": SIDE, "width": SIDE}
    )
    images.image_seq_length = 2
    processor = Florence2Processor(images, tokenizer)
    return _save(folder, _speaking(_seeded(Florence2ForConditionalGeneration, config, 13), tokenizer), processor)

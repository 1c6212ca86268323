"""Captions and redraws: Data-Juicer's mappers as they are and ours, same images, same device, same run.

Models have their published sizes and random weights, which never end a caption: each has exactly as many new words as
it may. Images are noisy JPEGs of 448 by 336 pixels on disk, and reading them counts. Data-Juicer's captioning mapper is
given the same number of new words (its own is 128); the rest are its defaults: fp32, sampling, eight images at a time.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench._photographs import draw_photographs
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.records import Record, text_of
from bettersynth.pool.images import ImageRoots
from bettersynth.workflow.plan import Plan

STOCK_BATCH = 10
"""Samples that Data-Juicer's executor hands to a mapper on a GPU."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(default: %(default)s)")
    parser.add_argument("--images", type=int, default=6144, help="images for BLIP-2 (default: %(default)s)")
    parser.add_argument("--long", type=int, default=768, help="images for LLaVA (default: %(default)s)")
    parser.add_argument("--redraws", type=int, default=64, help="images to draw anew (default: %(default)s)")
    parser.add_argument("--stock", type=int, default=60, help="images for Data-Juicer's mapper (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=20, help="new words of a BLIP-2 caption (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=256, help="captions at one time (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=14, help="processes that read images (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="models of two layers, to try the benchmark itself")
    parser.add_argument("--only", nargs="*", choices=CASES, help="models to measure (default: all)")


def measure(options: argparse.Namespace) -> dict[str, float]:
    """All models, one after the other."""
    figures: dict[str, float] = {}
    for name in options.only or CASES:
        with tempfile.TemporaryDirectory(prefix="bench-captions-") as temporary:
            started = time.monotonic()
            found = CASES[name](Path(temporary), options)
        figures |= found
        print(f"{name}: {time.monotonic() - started:.0f} s", found, flush=True)
    return figures


# --- BLIP-2 --------------------------------------------------------------------------------------


def _pairs(folder: Path, pairs: int, different: int) -> list[Record]:
    """Records whose images are `different` files in turn."""
    paths = draw_photographs(folder, min(different, pairs))
    text = text_of("a red car in front of an old house")
    return [Record(f"{number:07}", text, [paths[number % len(paths)].name]) for number in range(pairs)]


def _blip2(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    records = _pairs(folder / "images", options.images, 512)
    _save_blip2(folder / "models" / "blip2", options)
    captioner = {"model": "blip2", "max_new_tokens": options.tokens, "batch": options.batch, "workers": options.workers}
    greedy = {**captioner, "sampling": False}
    ours = _Captions(folder)
    rate, texts = ours.per_s(greedy, records)
    some = records[: options.images // 4]
    sampled, _ = ours.per_s(captioner, some)
    _, reordered = ours.per_s(greedy, some[::-1])
    _, smaller = ours.per_s({**greedy, "batch": options.batch // 4}, some)
    figures = {
        "captions_per_s": rate,
        "sampled_captions_per_s": sampled,
        "transformers_generate_captions_per_s": _generate_per_s(ours.model, captioner, folder, records, options),
        "same_in_another_order_share": _same(texts, reordered),
        "same_in_quarter_batches_share": _same(texts, smaller),
    }
    del ours
    _free_memory()
    for name, stock in _stock_captions_per_s(folder, records[: options.stock], options).items():
        figures |= {f"{name}_captions_per_s": stock, f"times_{name}": round(rate / stock, 1)}
    return {f"blip2_opt_2_7b_{name}": figure for name, figure in figures.items()}


class _Captions:
    """Our side; a model is loaded once for all that is measured of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model: Any = None

    def per_s(self, captioner: dict[str, Any], records: Sequence[Record]) -> tuple[float, dict[str, str | None]]:
        """Records made new in a second, from files to records, the model loaded before; and their texts by id."""
        from bettersynth.sources.captioners.recaptioner import Recaptioner

        configuration = _configuration(self.folder, captioner=captioner)
        roots = ImageRoots(configuration.pool, Layout(self.folder))
        recaptioner: Recaptioner = Plan(configuration).generators["new"].generator("new", configuration, roots, None)
        if self.model is not None:
            recaptioner.family.model = self.model
        list(recaptioner.make(records[:1]))  # loads the model and warms up
        self.model = recaptioner.family.model
        texts: dict[str, str | None] = {}
        started = time.perf_counter()
        for made in recaptioner.make(records):
            for place, outcome in made.items():
                texts[records[place].id] = outcome.records[0].text if outcome.records else outcome.reason
        seconds = time.perf_counter() - started
        assert len(texts) == len(records)
        _free_memory()
        return round(len(records) / seconds, 2), texts


def _same(texts: dict[str, str | None], others: dict[str, str | None]) -> float:
    return sum(texts[key] == text for key, text in others.items()) / len(others)


def _generate_per_s(
    model: Any, captioner: dict[str, Any], folder: Path, records: Sequence[Record], options: argparse.Namespace
) -> float:
    """transformers' `generate` as it comes, in our precision and batch; the images are on the device already."""
    import torch

    from bettersynth.configuration.generators import Captioner
    from bettersynth.configuration.pool import Reading
    from bettersynth.pool.images import open_image
    from bettersynth.sources.captioners.families import open_family

    family = open_family(Captioner(**captioner), folder / "models" / "blip2", options.device)
    pictures = [open_image(folder / "images" / record.images[0], Reading()) for record in records[: options.batch]]
    inputs = {name: tensor.to(options.device) for name, tensor in family.inputs(pictures).items()}

    @torch.inference_mode()
    def generate() -> None:
        model.generate(**inputs, max_new_tokens=options.tokens, do_sample=False).cpu()

    return round(len(pictures) / _seconds(generate, repeats=3), 2)


def _stock_captions_per_s(folder: Path, records: Sequence[Record], options: argparse.Namespace) -> dict[str, float]:
    """Data-Juicer's captioning mapper as its executor calls it, and with one image at a time."""
    model_utils = _import_data_juicer()
    from data_juicer.ops.mapper.image_captioning_mapper import ImageCaptioningMapper

    mapper = ImageCaptioningMapper(
        hf_img2seq=str(folder / "models" / "blip2"), keep_original_sample=False, accelerator=options.device
    )
    model, _ = model_utils.get_model(mapper.model_key, None, mapper.use_cuda())
    generate = model.generate
    model.generate = lambda **arguments: generate(**{**arguments, "max_new_tokens": options.tokens})  # noqa: F821 - deleted below
    samples = _samples(folder, records)
    rates = {}
    for name, size in (("data_juicer", mapper.gpu_batch_size), ("data_juicer_one_by_one", 1)):
        mapper.gpu_batch_size = size
        mapper.process_batched(samples(0, STOCK_BATCH))
        started = time.perf_counter()
        for start in range(0, len(records), STOCK_BATCH):
            mapper.process_batched(samples(start, start + STOCK_BATCH))
        rates[name] = round(len(records) / (time.perf_counter() - started), 2)
    del model, mapper, generate
    model_utils.MODEL_ZOO.clear()
    _free_memory()
    return rates


def _samples(folder: Path, records: Sequence[Record]) -> Callable[[int, int], dict[str, list[Any]]]:
    """Data-Juicer's batches: the records from one place to another, column by column."""

    def part(start: int, stop: int) -> dict[str, list[Any]]:
        some = records[start:stop]
        return {
            "text": [record.text for record in some],
            "images": [[str(folder / "images" / image) for image in record.images] for record in some],
        }

    return part


# --- LLaVA-1.5 and Stable Diffusion 1.5 ----------------------------------------------------------


def _llava(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    records = _pairs(folder / "images", options.long, 512)
    _save_llava(folder / "models" / "llava", options)
    captioner = {
        "model": "llava",
        "max_new_tokens": 4 * options.tokens,
        "batch": options.batch * 3 // 8,
        "workers": options.workers,
        "sampling": False,
    }
    rate, _ = _Captions(folder).per_s(captioner, records)
    return {
        "llava_1_5_7b_new_words_of_a_caption": float(4 * options.tokens),
        "llava_1_5_7b_captions_per_s": rate,
        "llava_1_5_7b_words_per_s": round(rate * 4 * options.tokens, 1),
    }


def _diffusion(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    import torch

    from bettersynth.sources.redrawers import Redrawing

    records = _pairs(folder / "images", options.redraws, options.redraws)
    _save_diffusion(folder / "models" / "diffusion", options)
    size = 64 if options.tiny else 512
    configuration = _configuration(folder, redrawer={"model": "diffusion", "batch": 16, "size": size})
    roots = ImageRoots(configuration.pool, Layout(folder))
    verb = Plan(configuration).generators["new"]
    redrawing: Redrawing = verb.generator("new", configuration, roots, folder / "drawn")
    list(redrawing.make(records[:1]))
    seconds = _seconds(lambda: list(redrawing.make(records)))  # noqa: F821 - deleted below
    rate = round(len(records) / seconds, 3)
    del redrawing
    _free_memory()

    _import_data_juicer()
    from data_juicer.ops.mapper.image_diffusion_mapper import ImageDiffusionMapper

    mapper = ImageDiffusionMapper(
        hf_diffusion=str(folder / "models" / "diffusion"),
        keep_original_sample=False,
        caption_key="text",
        save_dir=str(folder / "stock"),
        accelerator=options.device,
    )
    samples = _samples(folder, records)
    mapper.process_batched(samples(0, 1))
    with torch.inference_mode():
        stock = 4 / _seconds(lambda: mapper.process_batched(samples(0, 4)))
    _free_memory()
    return {
        "stable_diffusion_1_5_redraws_per_s": rate,
        "stable_diffusion_1_5_data_juicer_redraws_per_s": round(stock, 3),
        "stable_diffusion_1_5_times_data_juicer": round(rate / stock, 1),
    }


CASES: dict[str, Callable[[Path, argparse.Namespace], dict[str, float]]] = {
    "blip2_opt_2_7b": _blip2,
    "llava_1_5_7b": _llava,
    "stable_diffusion_1_5": _diffusion,
}


# --- what is measured ----------------------------------------------------------------------------


def _configuration(folder: Path, **engines: dict[str, Any]) -> Configuration:
    """One dataset `new`, by the captioner or the redrawer."""
    (kind, engine), *_ = engines.items()
    verb = "recaption" if kind == "captioner" else "redraw"
    return Configuration.model_validate(
        {
            "pool": {"files": [{"path": "pairs.jsonl", "name": "pairs"}], "images": str(folder / "images")},
            "models": {engine["model"]: {"path": str(folder / "models" / engine["model"])}},
            f"{kind}s": {"engine": engine},
            "datasets": {"new": {"from": "pool", verb: {kind: "engine"}}},
        }
    )


def _seconds(work: Callable[[], Any], repeats: int = 1) -> float:
    """Seconds of one call, the first of more not counted."""
    if repeats > 1:
        work()
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - started) / repeats


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _import_data_juicer() -> Any:
    from bettersynth.runtime.patches.data_juicer import import_data_juicer
    from bettersynth.sources.base import prepare_offline

    prepare_offline()
    return import_data_juicer()


def _save(folder: Path, make: Callable[[], Any], options: argparse.Namespace, *parts: Any) -> None:
    """A model with random weights in bf16, made on the device that it is measured on, and what belongs to it."""
    import torch

    torch.manual_seed(0)
    with torch.device(options.device):
        model = make().to(torch.bfloat16)
    for part in (model, *parts):
        part.save_pretrained(folder)
    del model
    _free_memory()


def _tokenizer(words: int, **special: int) -> Any:
    """A tokenizer of so many made-up words, with special tokens at the places where published models have them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"w{number}": number for number in range(words) if number not in special.values()}
    inner = Tokenizer(models.WordLevel(vocabulary | {f"<{name}>": place for name, place in special.items()}, "w0"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        unk_token="w0",
        additional_special_tokens=["<image>"],
        model_input_names=["input_ids", "attention_mask"],
    )


def _save_blip2(folder: Path, options: argparse.Namespace) -> None:
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessor,
        OPTConfig,
    )

    layers = {"num_hidden_layers": 2} if options.tiny else {}
    text = OPTConfig(
        vocab_size=50304,
        hidden_size=2560,
        word_embed_proj_dim=2560,
        ffn_dim=10240,
        num_attention_heads=32,
        pad_token_id=1,
        bos_token_id=2,
        eos_token_id=None,
        **({"num_hidden_layers": 32} | layers),
    )
    config = Blip2Config(
        vision_config=layers,
        qformer_config=layers,
        text_config=text.to_dict(),
        num_query_tokens=32,
        image_token_index=50265,
    )
    tokenizer = _tokenizer(50304, pad=1, s=2, image=50265)  # where Data-Juicer's mapper takes it to be
    processor = Blip2Processor(BlipImageProcessor(size={"height": 224, "width": 224}), tokenizer, num_query_tokens=32)
    _save(folder, lambda: Blip2ForConditionalGeneration(config), options, processor)


def _save_llava(folder: Path, options: argparse.Namespace) -> None:
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    layers = {"num_hidden_layers": 2} if options.tiny else {}
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
        **({"num_hidden_layers": 24} | layers),
    )
    text = LlamaConfig(vocab_size=32064, pad_token_id=1, bos_token_id=2, eos_token_id=None, **layers)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=32000, image_seq_length=576)
    side = {"height": 336, "width": 336}
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 336}, crop_size=side),
        _tokenizer(32064, pad=1, s=2, image=32000),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
    )
    _save(folder, lambda: LlavaForConditionalGeneration(config), options, processor)


def _save_diffusion(folder: Path, options: argparse.Namespace) -> None:
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
    from transformers.models.clip.tokenization_clip import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    source = folder / "words"
    source.mkdir(parents=True)
    (source / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}), "utf-8")
    (source / "merges.txt").write_text("#version: 0.2\n", "utf-8")
    torch.manual_seed(0)
    widths = (32, 64, 64, 64) if options.tiny else (320, 640, 1280, 1280)
    pipeline: Any = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(32, 32, 64, 64) if options.tiny else (128, 256, 512, 512),
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            sample_size=512,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
        ),
        tokenizer=CLIPTokenizer(str(source / "vocab.json"), str(source / "merges.txt"), model_max_length=77),
        unet=UNet2DConditionModel(
            block_out_channels=widths, cross_attention_dim=768, attention_head_dim=8, sample_size=64
        ),
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)

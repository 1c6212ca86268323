"""Scoring by Data-Juicer's operators as they are and by ours: same images, same device, same run.

Models have their published sizes and random weights; images are noisy JPEGs of 448 by 336 pixels. Each operator scores
the same pairs twice, as Data-Juicer calls it (one sample at a time, its own precision and autograd) and in our batches;
then all six make one pass from files on disk to published Parquet, on one GPU and, with `--gpus`, on several.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from bench._photographs import draw_photographs
from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, write_json
from bettersynth.core.records import POOL, Record, text_of, write_records
from bettersynth.pool.images import ImageRoots
from bettersynth.runtime.gpus import take
from bettersynth.workflow.passes import Chunk, chunk_name

CONTEST_PAIRS = 410_000
SHARD = 1000
"""Records of a shard, as in the contest's configuration."""
SOURCE_FILE = "bench"
NOUNS = "man woman dog cat horse bird house tree car beach table sky water street ball boat mountain flower"
WORDS = {
    "article": ["a", "the", "two", "three"],
    "adjective": ["red", "blue", "old", "small", "wooden", "bright", "empty", "tall", "young", "quiet"],
    "noun": NOUNS.split(" "),
    "verb": ["standing", "sitting", "lying", "running"],
    "preposition": ["on", "near", "under", "behind", "with", "by"],
}


class Case(NamedTuple):
    """An operator of the contest and what makes its model."""

    op: str
    model: Callable[[Path], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=41_000, help="pairs of the joint pass (default: %(default)s)")
    parser.add_argument(
        "--alone", type=int, default=41_000, help="pairs of each operator alone, 0 for none (default: %(default)s)"
    )
    parser.add_argument(
        "--stock", type=int, default=200, help="pairs for Data-Juicer's operator (default: %(default)s)"
    )
    parser.add_argument("--files", type=int, default=2048, help="different images; the rest are links to them")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs that share the joint pass (default: %(default)s)")
    parser.add_argument("--only", nargs="*", choices=CASES, help="operators to measure (default: all, and the pass)")
    parser.add_argument("--profile", type=Path, help="write PyTorch's profile of one joint shard to this file")


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Both sides of every operator, then the pass.

    Raises ValueError for a pass too short to be measured.
    """
    least = options.gpus * 2 * SHARD  # a pass is measured after the first shard of each GPU
    if not options.only and options.pairs < least:
        raise ValueError(f"--pairs {options.pairs}: a pass over {options.gpus} GPU(s) is measured on {least} or more")
    with tempfile.TemporaryDirectory(prefix="bench-scoring-") as temporary:
        folder = Path(temporary)
        records = make_pairs(folder / "images", max(options.pairs, options.alone), options.files)
        names = options.only or list(CASES)
        for name in names:
            CASES[name].model(folder / "models" / MODEL_FOLDERS.get(name, name))
        configuration = configure(folder, names)
        figures: dict[str, float] = {}
        if not options.only:
            figures |= _together(configuration, folder, records[: options.pairs], options.gpus)
            print("all in one pass", figures, flush=True)
        if options.gpus > 1 and not options.only:
            one = _together(configuration, folder, records[: options.pairs // options.gpus], 1)
            rates = [found["six_operators_pairs_per_s"] for found in (figures, one)]
            figures["six_operators_one_gpu_pairs_per_s"] = rates[1]
            figures["six_operators_times_one_gpu"] = round(rates[0] / rates[1], 2)
        if options.profile:
            figures |= _profile(configuration, folder, records[:SHARD], options.profile)
        for name in names if options.alone else ():
            figures |= _alone(name, configuration, folder, records, options)
        if options.alone and not options.only:
            stock = 1 / sum(1 / figures[f"{name}_data_juicer_pairs_per_s"] for name in names)
            figures["six_operators_data_juicer_pairs_per_s"] = round(stock, 2)
            figures["six_operators_times_data_juicer"] = round(figures["six_operators_pairs_per_s"] / stock, 1)
    return figures


# --- what is scored ------------------------------------------------------------------------------


def make_pairs(folder: Path, pairs: int, files: int) -> list[Record]:
    """Records with captions of some twelve words; every image is a file of its own name, `files` of them different."""
    different = draw_photographs(folder, min(files, pairs))
    for number in range(len(different), pairs):
        os.link(different[number % len(different)], folder / f"{number}.jpg")
    return [Record(f"{number:07}", text_of(_caption(number)), [f"{number}.jpg"]) for number in range(pairs)]


def _caption(seed: int) -> str:
    chance = random.Random(seed)

    def thing() -> list[str]:
        return [chance.choice(WORDS[kind]) for kind in ("article", "adjective", "noun")]

    words = [*thing(), chance.choice(WORDS["verb"])]
    for _ in range(chance.randint(1, 4)):
        words += [chance.choice(WORDS["preposition"]), *thing()]
    return " ".join(words)


def configure(folder: Path, names: Iterable[str]) -> Configuration:
    """A configuration of these operators over the images and models in `folder`."""
    names = list(names)
    return Configuration.model_validate(
        {
            "pool": {"files": [{"path": "none.jsonl", "name": SOURCE_FILE}], "images": str(folder / "images")},
            "models": {name: {"path": str(folder / "models" / MODEL_FOLDERS.get(name, name))} for name in names},
            "operators": {name: {"op": CASES[name].op, "model": name} for name in names},
        }
    )


# --- both sides ----------------------------------------------------------------------------------


def _alone(
    name: str, configuration: Configuration, folder: Path, records: list[Record], options: argparse.Namespace
) -> dict[str, float]:
    """One operator: Data-Juicer's rate, ours, and how their scores differ."""
    few = records[: options.stock]
    theirs, stock_rate = _stock(name, configuration, folder, few, options.device)
    exact, _ = _ours(name, configuration, folder, few, "fp32")
    ours, _ = _ours(name, configuration, folder, few, "auto")
    _, rate = _ours(name, configuration, folder, records[: options.alone], "auto")
    middle = len(theirs) // 2
    threshold = statistics.mean(sorted(theirs)[middle - 1 : middle + 1])  # between two scores
    figures = {
        "pairs": options.alone,
        "pairs_per_s": round(rate, 1),
        "data_juicer_pairs_per_s": round(stock_rate, 2),
        "times_data_juicer": round(rate / stock_rate, 1),
        "standard_deviation": statistics.pstdev(theirs),
        "largest_difference": max(abs(one - two) for one, two in zip(ours, theirs, strict=True)),
        "largest_difference_fp32": max(abs(one - two) for one, two in zip(exact, theirs, strict=True)),
        "decided_otherwise_percent": _otherwise(ours, theirs, threshold),
        "decided_otherwise_fp32_percent": _otherwise(exact, theirs, threshold),
    }
    print(name, figures, flush=True)
    return {f"{name}_{figure}": value for figure, value in figures.items()}


def _otherwise(ours: list[float], theirs: list[float], threshold: float) -> float:
    """Percent of the pairs that a threshold at Data-Juicer's median keeps on one side only."""
    differing = sum((one >= threshold) != (two >= threshold) for one, two in zip(ours, theirs, strict=True))
    return round(100 * differing / len(theirs), 3)


def _stock(
    name: str, configuration: Configuration, folder: Path, records: list[Record], device: str
) -> tuple[list[float], float]:
    """Data-Juicer's scores and pairs a second, as its executor calls the operator."""
    from bettersynth.runtime import patches

    patches.prepare(folder / "cache", configuration.pool.max_pixels)
    import torch

    from bettersynth.operators.data_juicer import build, score

    torch.backends.cudnn.allow_tf32 = False  # fp32 is fp32 on both sides
    built = build(configuration.operators[name], configuration.models[name], device)
    values = []
    for number, record in enumerate(records):
        if number == len(records) // 5:  # warm by now
            started = time.perf_counter()
        [[value]] = score(built, record.text, [str(folder / "images" / record.images[0])]).values()
        values.append(float(value))
    rate = (len(records) - len(records) // 5) / (time.perf_counter() - started)
    _forget_models()
    return values, rate


def _ours(
    name: str, configuration: Configuration, folder: Path, records: list[Record], precision: str
) -> tuple[list[float], float]:
    """Our scores and pairs a second, from files; the model is loaded."""
    from bettersynth.operators.batched.load import load_scorer

    settings = configuration.scoring.model_copy(update={"precision": precision})
    scorer = load_scorer([name], configuration.model_copy(update={"scoring": settings}))
    paths = ImageRoots(configuration.pool, Layout(folder / "results"))
    scorer.score(records[: min(len(records), 2 * SHARD)], paths)  # batches have grown by then
    started = time.perf_counter()
    scores = scorer.score(records, paths)[name]
    rate = len(records) / (time.perf_counter() - started)
    _forget_models()
    return [value for stats in scores.stats for [value] in stats.values()], rate


def _forget_models() -> None:
    import torch
    from data_juicer.utils import model_utils

    model_utils.MODEL_ZOO.clear()
    torch.cuda.empty_cache()


# --- one pass ------------------------------------------------------------------------------------


def _together(configuration: Configuration, folder: Path, records: list[Record], gpus: int) -> dict[str, float]:
    """All operators in one pass from files to Parquet, its shards split between the GPUs."""
    layout = Layout(folder / f"results-{gpus}")
    shards = []
    for first in range(0, len(records), SHARD):
        shards.append(f"{SOURCE_FILE}-{first // SHARD:04d}")
        write_records(layout.records(POOL, shards[-1]), records[first : first + SHARD])
    scoring = "gpu-000000000000"
    write_json(layout.scoring_pass(scoring), {"operators": dict.fromkeys(configuration.operators, "bench")})
    share = -(-len(shards) // gpus)
    chunks = [Chunk(scoring, chunk_name(shards[first : first + share])) for first in range(0, len(shards), share)]
    context = multiprocessing.get_context("spawn")
    jobs = [context.Process(target=_score, args=(chunk, configuration, layout)) for chunk in chunks]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    if any(job.exitcode for job in jobs):
        raise RuntimeError("a scoring process failed; its last words stand above")
    return _pass_figures(configuration, layout, chunks, len(records))


def _score(chunk: Chunk, configuration: Configuration, layout: Layout) -> None:
    take(1)
    from bettersynth.operators.scoring import score_chunk

    score_chunk(POOL, chunk, configuration, layout)


def _pass_figures(configuration: Configuration, layout: Layout, chunks: list[Chunk], pairs: int) -> dict[str, float]:
    """Rates after each chunk's first shard, whose surplus is the job's start: workers, first batches, GPU libraries."""
    rate = start = 0.0
    parts: dict[str, float] = {}
    for chunk in chunks:
        card = read_json(layout.pass_card(POOL, *chunk))
        times: list[tuple[int, float]] = []
        for shard, entry in card["shards"].items():
            for name, key in entry["scores"].items():
                shard_card = read_json(layout.score_shard(POOL, name, shard, key).with_suffix(".json"))
                computing = f"six_operators_{name}_gpu_seconds"
                parts[computing] = parts.get(computing, 0.0) + shard_card["seconds_by_part"].get("computing", 0.0)
            decoding = "six_operators_decoding_worker_seconds"
            parts[decoding] = parts.get(decoding, 0.0) + shard_card["seconds_by_part"]["decoding"]
            times.append((shard_card["records"], shard_card["records"] / shard_card["rate"]))
        steady = sum(records for records, _ in times[1:]) / sum(seconds for _, seconds in times[1:])
        rate += steady
        start = max(start, card["seconds"] - sum(records for records, _ in times) / steady)
    return {
        "six_operators_pairs": pairs,
        "six_operators_gpus": len(chunks),
        "six_operators_pairs_per_s": round(rate, 1),
        "six_operators_start_seconds": round(start, 1),
        "six_operators_410k_minutes": round((start + CONTEST_PAIRS / rate) / 60, 2),
        **{part: round(seconds, 1) for part, seconds in sorted(parts.items())},
    }


KERNELS = {
    "matrix_products": "gemm|nvjet|cutlass|conv",
    "attention": "sdpa|flash|fmha",
    "norms": "norm",
    "activations": "gelu|silu|sigmoid|tanh",
    "sums": "add",
    "copies": "copy|cat|memcpy|memset|gather|index",
}
"""Kinds of GPU kernels by what their names have; the first that fits counts."""


def kind_of_kernel(name: str) -> str:
    """One of `KERNELS`, or `others`."""
    return next((kind for kind, names in KERNELS.items() if re.search(names, name.lower())), "others")


def _profile(configuration: Configuration, folder: Path, records: list[Record], path: Path) -> dict[str, float]:
    """Shares of the device's time in one shard of the pass by kinds of kernels; PyTorch's table goes to `path`."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from bettersynth.operators.batched.load import load_scorer

    scorer = load_scorer(configuration.operators, configuration)
    paths = ImageRoots(configuration.pool, Layout(folder / "results"))
    for _ in range(2):
        scorer.score(records, paths)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        scores = scorer.score(records, paths)
    table = profiler.key_averages().table(sort_by="self_cuda_time_total", row_limit=40, max_name_column_width=60)
    seconds = "\n".join(f"{name}: {found.seconds}, batch {found.batch}" for name, found in scores.items())
    path.write_text(f"{len(records)} pairs\n{seconds}\n{table}\n", encoding="utf-8")
    _forget_models()
    shares = dict.fromkeys([*KERNELS, "others"], 0.0)
    for event in profiler.key_averages():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            shares[kind_of_kernel(event.key)] += event.self_device_time_total
    total = sum(shares.values()) or 1
    return {f"profile_{kind}_percent": round(100 * share / total, 1) for kind, share in shares.items()}


# --- models at their published sizes -------------------------------------------------------------


def _words() -> list[str]:
    return sorted({word for words in WORDS.values() for word in words})


def _save(folder: Path, make: Callable[[], Any], processor: Any) -> None:
    import torch

    torch.manual_seed(0)
    make().save_pretrained(folder)
    processor.save_pretrained(folder)


def _clip_processor() -> Any:
    from transformers import CLIPImageProcessor, CLIPProcessor

    from miniature.tokenizers import clip_tokenizer

    return CLIPProcessor(CLIPImageProcessor(), clip_tokenizer(_words()))


def _similarity(folder: Path) -> None:
    """CLIP ViT-B/32, openai/clip-vit-base-patch32."""
    from transformers import CLIPConfig, CLIPModel

    processor = _clip_processor()
    text = {"eos_token_id": processor.tokenizer.eos_token_id, "bos_token_id": processor.tokenizer.bos_token_id}
    config = CLIPConfig(text_config=text, logit_scale_init_value=math.log(100))  # as the published one has learned
    _save(folder, lambda: CLIPModel(config), processor)


def _matching(folder: Path) -> None:
    """BLIP with a ViT-B/16 at 384 pixels, Salesforce/blip-itm-base-coco."""
    from transformers import BlipConfig, BlipForImageTextRetrieval, BlipImageProcessor, BlipProcessor

    from miniature.tokenizers import bert_tokenizer

    config = BlipConfig(vision_config={"image_size": 384}, text_config={"encoder_hidden_size": 768})
    processor = BlipProcessor(BlipImageProcessor(), bert_tokenizer(_words()))
    _save(folder, lambda: BlipForImageTextRetrieval(config), processor)


def _aesthetics(folder: Path) -> None:
    """CLIP ViT-L/14 with a linear head, shunk031/aesthetics-predictor-v2-sac-logos-ava1-l14-linearMSE."""
    from aesthetics_predictor import AestheticsPredictorV2Linear
    from transformers import CLIPVisionConfig

    large = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        patch_size=14,
        projection_dim=768,
    )
    _save(folder, lambda: AestheticsPredictorV2Linear(large), _clip_processor())


def _classifier(folder: Path) -> None:
    """ViT-B/16 at 224 pixels with two classes, Falconsai/nsfw_image_detection and amrul-hzz/watermark_detector."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    _save(folder, lambda: ViTForImageClassification(ViTConfig(num_labels=2)), ViTImageProcessor())


def _grounding(folder: Path) -> None:
    """OWL-ViT B/32 at 768 pixels, google/owlvit-base-patch32."""
    from transformers import OwlViTConfig, OwlViTForObjectDetection, OwlViTImageProcessor, OwlViTProcessor

    from miniature.tokenizers import clip_tokenizer

    processor = OwlViTProcessor(OwlViTImageProcessor(), clip_tokenizer(_words(), max_length=16))
    _save(folder, lambda: OwlViTForObjectDetection(OwlViTConfig()), processor)


CASES = {
    "similarity": Case("image_text_similarity_filter", _similarity),
    "matching": Case("image_text_matching_filter", _matching),
    "aesthetics": Case("image_aesthetics_filter", _aesthetics),
    "watermark": Case("image_watermark_filter", _classifier),
    "nsfw": Case("image_nsfw_filter", _classifier),
    "grounding": Case("phrase_grounding_recall_filter", _grounding),
}
MODEL_FOLDERS = {"aesthetics": "aesthetics-predictor-v2-linear"}
"""Folder of a model whose name matters to Data-Juicer."""

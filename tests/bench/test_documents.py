"""What documents say: figures as they were measured."""

from __future__ import annotations

import re

import pytest

from bench import MEASUREMENTS, ROOT
from bettersynth.core.publish import read_json

FIGURE = re.compile(r"\{(?:(\d+)/)?([\w-]+)\.(\w+)(?:([*/])(\d+))?:([^}]+)\}")
"""`{measurement.figure:format}`, times or divided by a number: `{captions-quality.llava_right_share*100:.0f}`."""

QUOTES = {
    "docs/training.md": [
        "| stage 1 | {mgm-training.pretrain_samples_per_second:.1f} "
        "| {mgm-training.pretrain_model_flop_utilisation*100:.0f} % | {mgm-training.pretrain_peak_gb:.0f} GB "
        "| {mgm-training-2-gpus.pretrain_samples_per_second:.1f} |",
        "| stage 2 | {mgm-training.finetune_samples_per_second:.1f} "
        "| {mgm-training.finetune_model_flop_utilisation*100:.0f} % | {mgm-training.finetune_peak_gb:.0f} GB "
        "| {mgm-training-2-gpus.finetune_samples_per_second:.1f} |",
        "the slowest took {mgm-training.finetune_step_7_seconds:.0f} s on one GPU, "
        "{mgm-training-2-gpus.finetune_step_13_seconds:.0f} s on two",
        "questions take about {mgm-training.answer_textvqa_and_mmbench_minutes:.1f} minutes on one",
        "eager attention is {mgm-training.one_step_loss_fp32_eager:.4f}, on the fast path (bf16, PyTorch's attention, "
        "compiled) {mgm-training.one_step_loss_bf16_fast:.4f}, and the cosine of all trained gradients "
        "{mgm-training.one_step_gradient_cosine:.4f}",
        *(
            f"| {{mgm-training.pretrain_passes_{part}_samples_per_second:.1f}} "
            f"| {{mgm-training.pretrain_passes_{part}_peak_gb:.0f}} GB |"
            for part in (
                "0_all_logits_eager_attention_checkpointing",
                "1_logits_where_labels_are",
                "2_sdpa",
                "4_no_checkpointing",
                "5_compile",
            )
        ),
    ],
    "docs/pools.md": [
        "cold, {storages.cold_tar_over_files_2_workers:.2f} times as many by 2 workers and "
        "{storages.cold_tar_over_files_16_workers:.2f} times by 16",
        "warm, {storages.warm_tar_over_files_2_workers:.2f} and {storages.warm_tar_over_files_16_workers:.2f} times",
    ],
    "CHANGELOG.md": ["in one pass score {scoring.six_operators_pairs_per_s:.0f} pairs/s on an H100"],
    "docs/scoring.md": [
        *(
            f"| {{scoring.{name}_data_juicer_pairs_per_s:.0f}} | {{scoring.{name}_pairs_per_s:,.0f}} "
            f"| {{scoring.{name}_times_data_juicer:.0f}} |"
            for name in ("similarity", "matching", "aesthetics", "watermark", "nsfw", "grounding")
        ),
        "| all six in one pass, {scoring.six_operators_pairs:,.0f} pairs "
        "| {scoring.six_operators_data_juicer_pairs_per_s:.1f} | {scoring.six_operators_pairs_per_s:.0f} "
        "| {scoring.six_operators_times_data_juicer:.0f} |",
        "all six in one job take {scoring.six_operators_410k_minutes:.1f} minutes",
        "the job's start is {scoring.six_operators_start_seconds:.0f} s",
        "scored {scoring-2-gpus.six_operators_times_one_gpu:.2f} times the pairs a second of one",
        *(
            f"| {{scoring.profile_{kind}_percent:.0f}} % |"
            for kind in ("matrix_products", "attention", "norms", "activations", "sums")
        ),
        "in {decoding.simplejpeg_decode_ms:.2f} ms instead of Pillow's {decoding.pillow_decode_ms:.2f}, and from file "
        "to memory in {decoding.open_pixels_to_memory_ms:.2f} ms instead of {decoding.open_image_to_memory_ms:.2f}",
        "({decoding.pillow_resize_224_ms:.1f} ms to 224 pixels, {decoding.pillow_resize_384_ms:.1f} to 384, "
        "{decoding.pillow_resize_768_ms:.1f} to 768)",
        "all of the {1000/scoring.six_operators_pairs_per_s:.2f} s that 1,000 pairs take",
        "computes for {scoring.six_operators_similarity_gpu_seconds/41:.2f} s of 1,000 pairs' "
        "{1000/scoring.similarity_pairs_per_s:.2f} s, waits",
        "each image takes {scoring.six_operators_decoding_worker_seconds/41:.1f} ms of one of them",
    ],
    "docs/captions.md": [
        "greedy | {captions.blip2_opt_2_7b_captions_per_s:.0f} | Data-Juicer's mapper: "
        "{captions.blip2_opt_2_7b_data_juicer_one_by_one_captions_per_s:.1f} one by one "
        "({captions.blip2_opt_2_7b_times_data_juicer_one_by_one:.0f} times), "
        "{captions.blip2_opt_2_7b_data_juicer_captions_per_s:.1f} eight at a time, its default "
        "({captions.blip2_opt_2_7b_times_data_juicer:.0f} times)",
        "the same, sampled | {captions.blip2_opt_2_7b_sampled_captions_per_s:.0f} |",
        "writes {captions.blip2_opt_2_7b_transformers_generate_captions_per_s:.0f} of BLIP-2's",
        "greedy | {captions.llava_1_5_7b_captions_per_s:.1f} | {captions.llava_1_5_7b_words_per_s:,.0f} words a second",
        "| {captions.stable_diffusion_1_5_redraws_per_s:.1f} | Data-Juicer's mapper: "
        "{captions.stable_diffusion_1_5_data_juicer_redraws_per_s:.2f} "
        "({captions.stable_diffusion_1_5_times_data_juicer:.1f} times)",
        *(
            f"| {{captions-quality.{name}_right_share*100:.0f}} % "
            f"| {{captions-quality.{name}_attributes_right_share*100:.0f}} % "
            f"| {{captions-quality.{name}_attributes_per_caption:.1f}} "
            f"| {{captions-quality.{name}_words_per_caption:.0f}} |"
            for name in ("before", "blip2", "blip2_best_of_4", "llava")
        ),
    ],
    "docs/contest.md": [
        "| OWL-ViT over 410,000 | {scoring.grounding_pairs_per_s:,.0f} /s",
        "| BLIP-ITM | {scoring.matching_pairs_per_s:,.0f} /s",
        "| CLIP ViT-B/32 | {scoring.similarity_pairs_per_s:,.0f} /s",
        "| {captions.blip2_opt_2_7b_sampled_captions_per_s:.0f} /s (sampled",
        "take {scoring.grounding_data_juicer_pairs_per_s:.0f}, {scoring.matching_data_juicer_pairs_per_s:.0f}, "
        "{scoring.similarity_data_juicer_pairs_per_s:.0f} and (BLIP-2) "
        "{captions.blip2_opt_2_7b_data_juicer_one_by_one_captions_per_s:.1f} a second",
    ],
    "docs/full-size.md": [
        "ingest of 400,000 records | {data-plane.ingest_slowest_seconds:.0f} | {data-plane.ingest_peak_mb/1000:.1f} GB",
        "the slowest | {data-plane.dedup_slowest_seconds:.0f} | {data-plane.dedup_peak_mb/1000:.1f} GB",
        "400,000 vectors | {data-plane.cluster_slowest_seconds:.0f} | {data-plane.cluster_peak_mb/1000:.1f} GB",
        "200,000 rows | {data-plane.trainset_slowest_seconds:.1f} | {data-plane.trainset_peak_mb/1000:.1f} GB",
        "by Snakemake | {data-plane.changed_threshold_seconds:.1f} |",
        "{data-plane.matched_rows:,.0f} rows by matching",
        "{data-plane.weak_rows:,.0f} are weak",
        "{data-plane.better_rows:,.0f} get a better caption",
        "shards: {dry-run.first_seconds:.1f} seconds and {dry-run.peak_mb/1000:.2f} GB for {dry-run.jobs:,.0f} jobs",
        "rendered in {full-size.render_slowest_seconds:.0f} seconds",
        "every image decoded | {full-size.ingest_slowest_seconds:.0f} | {full-size.ingest_peak_mb/1000:.1f} GB",
        "operator | {full-size.words_num_slowest_seconds:.0f} | {full-size.words_num_peak_mb/1000:.1f} GB",
        "every verb but those below | at most {full-size.resample_slowest_seconds:.2f} |",
        "of the records | {full-size.clean_slowest_seconds:.1f} | {full-size.clean_peak_mb/1000:.1f} GB",
        "the slowest | {full-size.dedup_slowest_seconds:.1f} | {full-size.dedup_peak_mb/1000:.1f} GB",
        "400 clusters | {full-size.cluster_slowest_seconds:.0f} | {full-size.cluster_peak_mb/1000:.1f} GB",
        "all 410,000 rows | {full-size.trainset_slowest_seconds:.1f} | {full-size.trainset_peak_mb/1000:.1f} GB",
    ],
    "docs/exploring.md": [
        "the file has {explorer.file_mb:.1f} MB and opens in {explorer.open_seconds:.1f} s",
        "draws these points in {explorer.scatter_ms:.0f} ms; uPlot takes {explorer.uplot_scatter_ms:.0f} ms for them "
        "and adds {explorer.uplot_kb:.0f} kB",
        "a drag redraws in {explorer.drag_ms:.0f} ms",
    ],
    "docs/slurm.md": [
        "and {slurm.per_shard_seconds:.2f} s for each shard",
        "for each shard takes {slurm.alone_per_shard_seconds:.1f} s",
    ],
    "docs/miniature.md": [
        *(
            f"| {row} | {{miniature-quality.{figure}:.4f}} |"
            for row, figure in {
                "similarity, right against shuffled captions (AUROC)": "similarity_auroc_shuffled",
                "similarity, right against one wrong attribute (AUROC)": "similarity_auroc_one_wrong",
                "matching, right against shuffled (AUROC)": "matching_auroc_shuffled",
                "matching, right against one wrong attribute (AUROC)": "matching_auroc_one_wrong",
                "aesthetics, fine against ugly (AUROC)": "aesthetics_auroc",
                "watermark (AUROC)": "watermark_auroc",
                "nsfw (AUROC)": "nsfw_auroc",
                "grounding, present things recalled": "grounding_recall_present",
                "grounding, absent things recalled": "grounding_recall_absent",
                "BLIP-2, captions right in every attribute (sampled)": "blip2_captions_right",
                "LLaVA, captions right in every attribute (sampled)": "llava_captions_right",
                "redraws, own against another caption, by our CLIP (AUROC)": "diffusion_auroc_shuffled",
                "Gemma, answers from what stands in each patch, in words": "gemma_answers_from_words",
            }.items()
        ),
        *(
            f"| `{name}` | {{miniature-demo.{name}_seeds:.0f}} | {{miniature-demo.{name}_textvqa:.3f}} "
            f"| {{miniature-demo.{name}_mmbench:.3f}} |"
            for name in ("unfiltered", "similar", "matched", "spliced", "best", "enlarged")
        ),
        *(
            f"| `{one}` less `{two}` | "
            + " | ".join(
                f"{{miniature-demo.{one}_less_{two}_{part}_mean:+.3f}} "
                f"({{miniature-demo.{one}_less_{two}_{part}_low:+.3f}} to "
                f"{{miniature-demo.{one}_less_{two}_{part}_high:+.3f}})"
                for part in ("textvqa", "mmbench", "mean")
            )
            for one, two in (("matched", "unfiltered"), ("best", "matched"))
        ),
        *(
            f"| `{name}`, fresh | {{miniature-demo.fresh_{name}_seeds:.0f}} "
            f"| {{miniature-demo.fresh_{name}_textvqa:.3f}} | {{miniature-demo.fresh_{name}_mmbench:.3f}} |"
            for name in ("unfiltered", "matched", "best")
        ),
        *(
            f"| `{one}` over `{two}` | ×{{miniature-demo.fresh_{one}_over_{two}_ratio:.2f}} "
            f"({{miniature-demo.fresh_{one}_over_{two}_low:.2f}} to "
            f"{{miniature-demo.fresh_{one}_over_{two}_high:.2f}}) "
            f"| {{miniature-demo.fresh_{one}_over_{two}_p:.2g}} |"
            for one, two in (("matched", "unfiltered"), ("best", "matched"), ("best", "unfiltered"))
        ),
        "ten give {miniature-demo.fresh_best_textvqa:.3f} on TextVQA, not {miniature-demo.best_textvqa:.3f}",
    ],
}


def _numbers(quote: str) -> list[str]:
    """The figures of a quote, as its document should write them."""

    def number(match: re.Match[str]) -> str:
        dividend, name, key, operator, number, spec = match.groups()
        value = read_json(MEASUREMENTS / f"{name}.json")["figures"][key]
        if dividend:
            value = int(dividend) / value
        if operator:
            value = value * int(number) if operator == "*" else value / int(number)
        return format(value, spec)

    return [number(match) for match in FIGURE.finditer(quote)]


def _blocks(document: str) -> list[str]:
    """Paragraphs, and the rows of tables."""
    text = (ROOT / document).read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return rows + [" ".join(block.split()) for block in text.split("\n\n")]


@pytest.mark.parametrize(("document", "quote"), [(name, quote) for name, quotes in QUOTES.items() for quote in quotes])
def test_documents_quote_what_was_measured(document, quote):
    """The figures stand in one paragraph or row, in this order; a quote's words only say which."""
    numbers = _numbers(quote)
    in_order = re.compile(".*?".join(rf"(?<![\d.,]){re.escape(number)}(?!\d|[.,]\d)" for number in numbers))
    assert any(in_order.search(block) for block in _blocks(document)), f"{document} lacks {numbers}: {quote}"


def test_every_measurement_is_quoted_or_linked():
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in documents)
    assert [path.name for path in MEASUREMENTS.glob("*.json") if f"measurements/{path.name}" not in text] == []

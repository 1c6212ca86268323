"""The benchmarks: each can be called by its name and keeps its figures with what they come from."""

from __future__ import annotations

import argparse
import subprocess
import sys

import published_mgm
import pytest
import torch

from bench import MEASUREMENTS, ROOT, mgm_training, record, scoring
from bench.mgm_training import TEXT, TOLERANCE, VISION, VISION_AUX, Bench
from bettersynth.configuration.datasets import VERBS
from bettersynth.core.publish import read_json
from bettersynth.training.mgm.model import MGMConfig, MGMForConditionalGeneration

MEASURE = [sys.executable, "-m", "bench"]


def test_figures_are_kept_in_order_with_their_command_commit_and_machine(tmp_path):
    path = tmp_path / "speed.json"
    record(path, "python -m bench speed", {"second_per_s": 2.5, "first_mb": 1})
    kept = read_json(path)
    assert list(kept) == ["command", "commit", "date", "machine", "figures"]
    assert list(kept["figures"].items()) == [("second_per_s", 2.5), ("first_mb", 1)]
    assert "CPU" in kept["machine"] and "cores" in kept["machine"]


def test_every_benchmark_says_what_it_measures():
    listed = subprocess.run([*MEASURE, "--help"], capture_output=True, text=True, check=True).stdout
    for module in (ROOT / "bench").glob("[!_]*.py"):
        assert module.stem.replace("_", "-") in listed


@pytest.mark.parametrize("path", sorted(MEASUREMENTS.glob("*.json")), ids=lambda path: path.stem)
def test_kept_figures_are_numbers_and_say_where_they_come_from(path):
    kept = read_json(path)
    assert {"command", "commit", "date", "machine", "figures"} <= kept.keys()
    assert all(isinstance(value, (int, float)) for value in kept["figures"].values())


@pytest.mark.workflow
def test_a_dry_run_is_timed_without_the_inputs(tmp_path):
    out = tmp_path / "dry-run.json"
    config = ROOT / "config" / "miniature.yaml"
    subprocess.run([*MEASURE, "dry-run", "--config", config, "--out", out], check=True, cwd=tmp_path)
    figures = read_json(out)["figures"]
    assert figures["recipes"] == 9 and figures["jobs"] > 100
    assert str(tmp_path) not in read_json(out)["command"]
    assert 0 < figures["second_seconds"] < 60 and figures["peak_mb"] > 20


@pytest.mark.parametrize(("pairs", "gpus"), [(1999, 1), (4000, 3)])
def test_a_pass_too_short_to_be_measured_is_refused(pairs, gpus):
    options = argparse.Namespace(pairs=pairs, gpus=gpus, only=None)
    with pytest.raises(ValueError, match=f"--pairs {pairs}: .*{gpus} GPU.* measured on {gpus * 2000} or more"):
        scoring.measure(options)


def test_training_is_measured_part_by_part(tmp_path, monkeypatch):
    sizes = [published_mgm.LANGUAGE | {"vocab_size": 4000}, published_mgm.CLIP, published_mgm.CONVNEXT]
    options = argparse.Namespace(steps=1, workers=0, images=4, gpus=1)
    batches = {"one_step": 2, "pretrain": 4, "pretrain_device": 2, "finetune": 4, "finetune_device": 2, "answer": 2}
    bench = Bench(MGMConfig(*sizes, image_size_aux=32), tmp_path, options, batches)
    with torch.compiler.set_stance("force_eager"):
        step = bench.one_step()
        assert step["one_step_loss_bf16_fast"] == pytest.approx(step["one_step_loss_fp32_eager"], rel=TOLERANCE)
        assert step["one_step_gradient_cosine"] > 0.99
        assert len(bench.what_each_part_buys()) == 12
        rates = [bench.pretrain()["pretrain_samples_per_second"], bench.finetune()["finetune_samples_per_second"]]
        assert min([*rates, bench.answers()["answer_questions_per_second"]]) > 0
        monkeypatch.setattr(mgm_training, "TOLERANCE", 0)
        with pytest.raises(ValueError, match=r"in plain fp32, but .* on the fast path"):
            Bench(MGMConfig(*sizes, image_size_aux=32), tmp_path, options, batches).one_step()


def test_training_is_measured_at_the_published_size():
    with torch.device("meta"):
        model = MGMForConditionalGeneration(MGMConfig(TEXT, VISION, VISION_AUX, image_size_aux=768))
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_019_166_144


@pytest.mark.workflow
def test_the_story_of_the_best_recipe_is_told_by_drawn_scores(tmp_path):
    out = tmp_path / "data-plane.json"
    arguments = ["--records", "8200", "--recipes", "similar", "best", "--folder", tmp_path / "plane", "--out", out]
    subprocess.run([*MEASURE, "data-plane", *arguments], check=True, cwd=tmp_path)
    figures = read_json(out)["figures"]
    assert figures["rescored_when_a_file_is_added"] == 0
    assert 2200 < figures["matched_rows"] < 2700 and figures["best_rows"] == 2 * figures["matched_rows"]
    assert figures["published_rows_stated"] > figures["published_rows_within_5_percent"] == 0, (
        "of a fiftieth of the pool"
    )
    assert {"filter_slowest_seconds", "splice_peak_mb", "trainset_slowest_cpu_seconds"} <= figures.keys()


@pytest.mark.workflow
def test_every_verb_is_timed_over_rendered_records(tmp_path):
    out = tmp_path / "full-size.json"
    arguments = ["--records", "410", "--folder", tmp_path / "world", "--out", out]
    subprocess.run([*MEASURE, "full-size", *arguments], check=True, cwd=tmp_path)
    figures = read_json(out)["figures"]
    assert figures["records"] == 410
    assert {f"{verb}_peak_mb" for verb in ("ingest", "words_num", "trainset", *VERBS)} <= figures.keys()


def test_kernels_are_told_apart_by_their_names():
    names = {
        "nvjet_sm90_hsh_192x192_64x4_1x2_h_bz_coopB_bias_TNN": "matrix_products",
        "sm80_xmma_gemm_f32f32_f32f32_f32_tn_n_tilesize128x128x8": "matrix_products",
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16": "attention",
        "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<c10::Half, float>": "norms",
        "void at::native::vectorized_elementwise_kernel<8, at::native::GeluCUDAKernelImpl(at::TensorIteratorBase)": (
            "activations"
        ),
        "void at::native::vectorized_elementwise_kernel<8, at::native::CUDAFunctor_add<c10::Half>": "sums",
        "Memcpy HtoD (Pinned -> Device)": "copies",
        "_resize": "others",
    }
    assert {name: scoring.kind_of_kernel(name) for name in names} == names

"""Stands in for the contest kit's `mgm/train/train.py`, which is not shipped: its arguments, lines and files, small.

It trains nothing; it opens what it is given as the kit does, and changes weights by a number that a test can look for.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

FLAGS = [
    *("deepspeed", "model_name_or_path", "version", "data_path", "image_folder", "vision_tower"),
    *("vision_tower_aux", "drop_path", "pretrain_mm_mlp_adapter", "mm_projector_type"),
    *("tune_mm_mlp_adapter", "mm_vision_select_layer", "mm_use_im_start_end", "mm_use_im_patch_token"),
    *("image_aspect_ratio", "group_by_modality_length", "image_size_aux", "bf16", "output_dir"),
    *("num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("evaluation_strategy", "save_strategy", "learning_rate", "weight_decay", "warmup_ratio"),
    *("lr_scheduler_type", "logging_steps", "tf32", "model_max_length", "gradient_checkpointing"),
    *("dataloader_num_workers", "lazy_preprocess", "report_to", "seed"),
]


def train() -> None:
    """Both stages."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for flag in FLAGS:
        parser.add_argument(f"--{flag}")
    options = parser.parse_args()
    kit = Path(__file__).parents[2]
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "PYTHONPATH", "WORLD_SIZE")
    seen = vars(options) | {name: os.environ.get(name) for name in names}
    stage = "pretrain" if options.tune_mm_mlp_adapter else "finetune"
    (kit / f"{stage}.json").write_text(json.dumps({key: value for key, value in seen.items() if value is not None}))
    sys.path.insert(0, (kit / "modules.txt").read_text())

    rows = json.loads(Path(options.data_path).read_text())
    for row in rows:
        assert "image" not in row or Path(options.image_folder, row["image"]).is_file()
    steps = len(rows) // int(options.per_device_train_batch_size) // int(options.gradient_accumulation_steps)
    for step in range(1, steps + 1):
        print(f"\r{step}/{steps} [00:01<00:05, 1.2s/it]", end="", file=sys.stderr, flush=True)
        print(f"{{'loss': {7 - step / 2}, 'grad_norm': 1.5, 'learning_rate': 1e-0{step}, 'epoch': 0.1}}", flush=True)
    print("{'train_runtime': 3.2, 'train_loss': 5.25, 'epoch': 1.0}")
    write(options, Path(options.output_dir))


def write(options: argparse.Namespace, output: Path) -> None:
    """What the kit leaves of a stage."""
    import torch
    from safetensors.torch import save_file

    from bettersynth.training.mgm import published
    from bettersynth.training.mgm.model import MGMForConditionalGeneration
    from bettersynth.training.mgm.processing import Processor

    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        convnext = torch.load(Path(options.vision_tower_aux, "open_clip_pytorch_model.bin"), weights_only=True)
        save_file(convnext, place / "open_clip.safetensors")
        published.convert_open_clip(place / "open_clip.safetensors", place / "convnext")
        model = MGMForConditionalGeneration.from_parts(
            options.model_name_or_path,
            options.vision_tower,
            place / "convnext",
            image_size_aux=int(options.image_size_aux),
            image_aspect=options.image_aspect_ratio,
        ).to(torch.bfloat16)
        if options.tune_mm_mlp_adapter:
            output.mkdir()
            model.connector.projector[0].bias.data.fill_(0.25)
            kept = {published.published_name(name): value for name, value in model.named_parameters()}
            trained = {name: value for name, value in kept.items() if "mm_projector" in name or "vlm_uni" in name}
            frozen = "model.vision_tower_aux.vision_stem.0.weight"
            torch.save(trained | {frozen: kept[frozen]}, output / "mm_projector.bin")
            return
        adapter = Path(options.pretrain_mm_mlp_adapter)
        model.load_connector(published.read_connector(adapter, model.config), adapter)
        model.language_model.model.norm.weight.data.fill_(0.5)
        model.save_pretrained(place / "trained")
        Processor.load(Path(options.model_name_or_path), Path(options.vision_tower), model.config).save(
            place / "trained"
        )
        published.export_published(place / "trained", output)

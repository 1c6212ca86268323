"""Training by the kit's program: what it is given, and that what it makes is a run like ours. See `kit_stand_in`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_mgm import make_run

from bettersynth.configuration.types import Configuration
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, write_json
from bettersynth.evaluation.answering import write_answers
from bettersynth.training.mgm import published
from bettersynth.training.mgm.processes import run
from bettersynth.training.mgm.training import finetune, pretrain, probe
from bettersynth.workflow.jobs import Jobs

ROOT = Path(__file__).parents[2]
CLIP = "model_zoo/OpenAI/clip-vit-large-patch14-336"
CONVNEXT = "model_zoo/OpenAI/openclip-convnext-large-d-320-laion2B-s29B-b131K-ft-soup"


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout with the stand-in for its training program, committed."""
    kit = tmp_path / "toolkit" / "training"
    (kit / "mgm" / "train").mkdir(parents=True)
    (kit / "scripts").mkdir()
    shutil.copy(ROOT / "tests" / "support" / "kit_stand_in.py", kit / "mgm" / "train" / "train.py")
    (kit / "mgm" / "train" / "train_mem.py").write_text("from mgm.train.train import train\n\ntrain()\n")
    (kit / "mgm" / "train" / "llava_trainer.py").write_text("")
    (kit / "scripts" / "zero2_offload.json").write_text("{}")
    (kit / "modules.txt").write_text(str(ROOT / "scripts"))
    git = ["git", "-C", str(kit), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "The kit"]):
        subprocess.run([*git, *command], check=True)
    return kit


@pytest.fixture
def start(tmp_path, checkout, monkeypatch):
    """Makes configuration and layout of a run, by the kit on one GPU or by ourselves."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    def make(name: str, by_kit: bool = True, **kit: str) -> tuple[Configuration, Layout]:
        folder = tmp_path / name
        folder.mkdir()
        place = {"path": str(checkout), "python": sys.executable} | kit
        stage = {"precision": "bf16", "compile": False}
        configuration = make_run(folder, keep=1, kit=place if by_kit else None, pretrain=stage, finetune=stage)
        layout = Layout(folder / "results")
        layout.trainset("tiny").parent.mkdir(parents=True)
        shutil.copy(folder / "captions.json", layout.trainset("tiny"))
        write_json(layout.seeds("tiny"), {"seeds": [{"seed": 1, "verdict": "go"}]})
        return configuration, layout

    return make


def files_of(layout: Layout) -> set[str]:
    folder = layout.run("tiny", 1)
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_run_by_the_kit_is_like_one_of_ours(start, checkout, monkeypatch):
    configuration, layout = start("kit")
    folder = layout.root.parent
    for stage in ("pretrain", "finetune"):
        run(stage, "tiny", 1, configuration, layout)
    given = read_json(checkout / "pretrain.json")
    assert given == {
        "tune_mm_mlp_adapter": "True",
        "deepspeed": str(checkout / "scripts" / "zero2_offload.json"),
        "model_name_or_path": "model_zoo/LLM/gemma/gemma-2b-it",
        "version": "gemma",
        "data_path": str(layout.trainset("tiny")),
        "image_folder": str(folder / "images"),
        "vision_tower": CLIP,
        "vision_tower_aux": CONVNEXT,
        "drop_path": "False",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": "-2",
        "mm_use_im_start_end": "False",
        "mm_use_im_patch_token": "False",
        "image_aspect_ratio": "square",
        "group_by_modality_length": "False",
        "image_size_aux": "32",
        "bf16": "True",
        "tf32": "True",
        "output_dir": "output",
        "num_train_epochs": "1.0",
        "per_device_train_batch_size": "2",
        "gradient_accumulation_steps": "2",
        "evaluation_strategy": "no",
        "save_strategy": "no",
        "learning_rate": "0.01",
        "weight_decay": "0.0",
        "warmup_ratio": "0.03",
        "lr_scheduler_type": "cosine",
        "logging_steps": "1",
        "model_max_length": "64",
        "gradient_checkpointing": "False",
        "dataloader_num_workers": "0",
        "lazy_preprocess": "True",
        "seed": "1",
        "report_to": "none",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "PYTHONPATH": str(checkout),
        "WORLD_SIZE": "1",
    }
    changed = {
        "data_path": str(folder / "instructions.json"),
        "learning_rate": "0.001",
        "image_aspect_ratio": "pad",
        "group_by_modality_length": "True",
        "pretrain_mm_mlp_adapter": "mm_projector.bin",
    }
    assert read_json(checkout / "finetune.json") == {
        key: value for key, value in (given | changed).items() if key != "tune_mm_mlp_adapter"
    }

    card = read_json(layout.pretrain("tiny", 1) / "card.json")
    assert (card["steps"], card["rows"], card["first_loss"], card["last_loss"], card["loss"]) == (6, 24, 6.5, 4, 4)
    commit = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    assert card["inputs"]["kit"]["commit"] == commit.strip()
    log = [json.loads(line) for line in (layout.pretrain("tiny", 1) / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [1, 2, 3, 4, 5, 6]
    assert log[1] == {"step": 2, "loss": 6.0, "learning_rate": 0.01}
    connector = load_file(layout.pretrain("tiny", 1) / "connector.safetensors")
    assert connector["projector.0.bias"].eq(0.25).all() and connector["projector.0.bias"].dtype == torch.float32
    model = load_file(layout.finetune("tiny", 1) / "checkpoint" / "model.safetensors")
    assert model["connector.projector.0.bias"].eq(0.25).all()
    assert model["language_model.model.norm.weight"].eq(0.5).all()
    convnext = load_file(Path(configuration.models["vision_tower_aux"].path, "model.safetensors"))
    name = "encoder.stages.1.downsampling_layer.1.weight"
    assert torch.equal(model[f"vision_tower_aux.{name}"], convnext[name].bfloat16())
    assert f"commit {commit.strip()}" in (layout.finetune("tiny", 1) / "checkpoint" / "README.md").read_text()

    monkeypatch.undo()
    ours, our_layout = start("ours", by_kit=False)
    for stage in (pretrain, finetune):
        stage("tiny", 1, ours, our_layout)
    assert files_of(layout) == files_of(our_layout)
    ours_card = read_json(our_layout.finetune("tiny", 1) / "card.json")
    assert ours_card.keys() - read_json(layout.finetune("tiny", 1) / "card.json").keys() == {"truncation"}

    rows = [{"question_id": f"{n}", "image": f"{n}.png", "text": "what is this ?"} for n in range(2)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    textvqa = {"questions": str(folder / "questions.jsonl"), "annotations": "none", "images": str(folder / "images")}
    evaluation = {"textvqa": textvqa | {"max_new_tokens": 3}, "precision": "fp32"}
    asked = Configuration.model_validate(configuration.model_dump(by_alias=True) | {"evaluation": evaluation})
    write_answers("tiny", 1, asked, layout)
    assert len(layout.answers("tiny", 1, "textvqa").read_text().splitlines()) == 2


def test_a_stage_is_trained_again_by_the_other_program_and_not_by_the_same(start, checkout):
    configuration, layout = start("run")
    pretrain("tiny", 1, configuration, layout)
    (checkout / "pretrain.json").unlink()
    pretrain("tiny", 1, configuration, layout)
    assert not (checkout / "pretrain.json").exists()
    (checkout / "mgm" / "train" / "llava_trainer.py").write_text("# changed\n")
    card = pretrain("tiny", 1, configuration, layout)
    assert (checkout / "pretrain.json").exists() and card["inputs"]["kit"]["commit"].endswith("-dirty")


def test_snakemake_knows_the_program(start, checkout):
    def facts(name: str, by_kit: bool) -> dict:
        configuration, layout = start(name, by_kit)
        return Jobs(configuration, layout).pretrain.parameters("tiny", "1")

    ours, theirs = facts("ours", by_kit=False), facts("theirs", by_kit=True)
    (checkout / "mgm" / "train" / "train.py").write_text("# changed\n")
    changed = facts("changed", by_kit=True)
    assert "kit" not in ours and len(theirs["kit"]) == 4 and changed["kit"] != theirs["kit"]


def test_a_probe_ends_the_program_after_its_steps(start, checkout):
    configuration, layout = start("run")
    (checkout / "mgm" / "train" / "train.py").write_text(
        "import time\ndef train():\n"
        "    for loss in (3.0, 2.0, 1.0):\n"
        "        print({'loss': loss, 'learning_rate': 0.1}, flush=True)\n"
        "    time.sleep(3600)\n"
    )
    card = probe("tiny", 1, configuration, layout)
    assert (card["steps"], card["loss"]) == (2, 2.0)
    left = {path.name for path in layout.probe("tiny", 1).iterdir()}
    assert left == {"card.json", "done.json", "log.jsonl"}


def test_a_program_that_fails_is_quoted(start, checkout, capfd):
    configuration, layout = start("run")
    (checkout / "mgm" / "train" / "train.py").write_text("def train():\n    raise MemoryError('too little of it')\n")
    with pytest.raises(
        RuntimeError, match=r"pretrain tiny seed 1: the kit's program ended with code 1.*job's log"
    ) as e:
        pretrain("tiny", 1, configuration, layout)
    assert "too little of it" in capfd.readouterr().out and len(str(e.value).splitlines()) <= 21
    (checkout / "mgm" / "train" / "train.py").write_text("def train():\n    print({'loss': float('nan')})\n")
    card = pretrain("tiny", 1, configuration, layout)
    assert (card["fate"], card["why"]) == ("failed", "the loss was nan at step 1 of pretrain")
    assert not (layout.pretrain("tiny", 1) / "kit").exists()
    shutil.rmtree(layout.pretrain("tiny", 1))
    (checkout / "mgm" / "train" / "train.py").write_text("def train():\n    print('done')\n")
    with pytest.raises(RuntimeError, match="no loss is among the lines"):
        pretrain("tiny", 1, configuration, layout)
    assert not (layout.pretrain("tiny", 1) / "card.json").exists()


def test_what_is_missing_is_named(start, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"training\.kit\.path: .* has no mgm/train/train_mem\.py"):
        pretrain("tiny", 1, *start("nowhere", path=str(tmp_path)))
    with pytest.raises(FileNotFoundError, match=r"training\.kit\.python: there is no /no/python"):
        pretrain("tiny", 1, *start("unborn", python="/no/python"))
    configuration, layout = start("poor")
    with pytest.raises(ValueError, match="one node, and pretrain asks for 2"):
        run("pretrain", "tiny", 1, configuration, layout, nodes=2)
    for gpus, message in ((0, "needs a GPU, and this job has none"), (3, "no multiple of device_batch 2 × 3 GPUs")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        with pytest.raises((RuntimeError, ValueError), match=message):
            pretrain("tiny", 1, configuration, layout)


def test_a_pickle_of_more_than_tensors_stays_closed(tmp_path):
    torch.save({"model.mm_projector.0.bias": Path("here")}, tmp_path / "mm_projector.bin")
    with pytest.raises(published.PublishedWeightsError, match="holds more than tensors"):
        published.read_connector(tmp_path / "mm_projector.bin", None)

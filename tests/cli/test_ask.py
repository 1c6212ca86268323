"""A trained model is found, opened as its card says, and asked."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_mgm import make_image, make_run

from bettersynth.cli.ask import answer, find_model
from bettersynth.core.digests import sha256_folder
from bettersynth.core.errors import PersonError
from bettersynth.core.layout import Layout
from bettersynth.core.publish import read_json, sha256_file, write_json
from bettersynth.training.mgm.training import finetune, pretrain
from bettersynth.training.model_card import write_model_card
from bettersynth.workflow.plan import Plan
from bettersynth.workflow.run import Run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    configuration = make_run(folder, seeds=(4, 7))
    layout = Layout(folder / "results")
    layout.trainset("tiny").parent.mkdir(parents=True)
    shutil.copy(folder / "captions.json", layout.trainset("tiny"))
    pretrain("tiny", 7, configuration, layout)
    finetune("tiny", 7, configuration, layout)
    return configuration, layout


def opened(configuration, layout):
    return Run(configuration, layout, Plan(configuration), Path("config/test.yaml"))


def test_the_first_trained_model_is_asked(trained, tmp_path):
    run = opened(*trained)
    layout, folder = run.layout, find_model(run, None, None)
    assert folder == layout.finetune("tiny", 7) / "checkpoint"
    make_image(1).save(tmp_path / "picture.png")
    first, same = (answer(folder, "what is in the picture ?", tmp_path / "picture.png", 8) for _ in range(2))
    assert first == same
    with pytest.raises(ValueError, match="image missing"):
        answer(folder, "what ?", tmp_path / "none.png", 8)


def test_what_is_not_there_is_said_with_the_next_command(trained):
    run = opened(*trained)
    with pytest.raises(PersonError, match=r"seed 4 in .*make run CONFIG=config/test.yaml RECIPE=tiny"):
        find_model(run, "tiny", 4)
    with pytest.raises(PersonError, match="no recipe `best`; there are: tiny"):
        find_model(run, "best", None)


def test_a_stopped_seed_is_said_to_be_stopped(trained):
    run = opened(*trained)
    card = run.layout.finetune("tiny", 4) / "card.json"
    write_json(card, {"status": "stopped", "why": "its loss was the higher one"})
    try:
        with pytest.raises(
            PersonError, match=r"the probe stopped tiny, seed 4 \(its loss was the higher one\)"
        ) as told:
            find_model(run, "tiny", 4)
        assert "make run" not in str(told.value)
    finally:
        card.unlink()


def test_the_card_says_what_the_model_is_and_changes_nothing(trained):
    _, layout = trained
    folder, card = layout.finetune("tiny", 7) / "checkpoint", read_json(layout.finetune("tiny", 7) / "card.json")
    text = (folder / "README.md").read_text()
    assert "recipe `tiny`, seed 7" in text and "Not evaluated yet" in text
    assert sha256_file(layout.trainset("tiny")) in text and card["inputs"]["data_sha256"] in text
    write_json(layout.result("tiny", 7, "textvqa"), {"status": "done", "benchmark": "textvqa", "accuracy": 0.25})
    write_model_card(layout.run("tiny", 7), folder)
    assert "| textvqa | 0.2500 |" in (folder / "README.md").read_text()
    assert sha256_folder(folder) == card["sha256"]


def test_the_cards_snippet_runs(trained, tmp_path):
    _, layout = trained
    folder = layout.finetune("tiny", 7) / "checkpoint"
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL).group(1)
    code = code.replace("fp16", "fp32").replace("What is in the picture?", "what is this ?")
    make_image(1).save(folder.parent / "picture.jpg")
    command = [sys.executable, "-c", code]
    environment = {"PYTHONPATH": str(ROOT / "scripts"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("{0: "), done.stderr

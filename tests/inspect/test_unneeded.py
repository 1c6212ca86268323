"""`make gc`: what no configuration needs is listed and removed, and what is needed stays."""

from __future__ import annotations

import copy
import os
import platform
import shutil
from contextlib import chdir
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from in_process import InProcess, do

from bettersynth.cli.gc import command
from bettersynth.core.commands import CONFIG_FILE
from bettersynth.inspect.audit import Audited, look_at_all
from bettersynth.inspect.unneeded import unneeded
from bettersynth.workflow.run import Run

pytestmark = pytest.mark.models
STOPPED = "checkpoint of a seed that was stopped"


@pytest.fixture
def place(whole_run, tmp_path):
    """The finished run, copied, its configuration in `config`."""
    folder = tmp_path / "run"
    shutil.copytree(whole_run, folder)
    os.environ[CONFIG_FILE] = "small.yaml"
    with chdir(folder):
        yield folder


def gc(*options: str) -> str:
    done = CliRunner().invoke(command, ["--config", "small.yaml", *options])
    assert done.exit_code == 0, done.output
    return done.output


def kinds() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in unneeded([Run.open("small.yaml")]):
        found.setdefault(entry.kind, []).append(entry.path.relative_to("results/small").as_posix())
    return found


def test_all_of_a_finished_run_is_needed_but_what_a_stopped_seed_would_go_on_from(place):
    assert kinds() == {STOPPED: ["runs/best/seed-1/probe/checkpoints"]}
    assert "in all: checkpoint of a seed that was stopped" in gc() and Path("results/small/runs/best/seed-1").exists()


def test_what_a_changed_configuration_leaves_is_removed_and_nothing_else(place):
    content = yaml.safe_load(Path("small.yaml").read_text())
    changed = copy.deepcopy(content)
    del changed["recipes"]["unfiltered"], changed["datasets"]["redrawn"], changed["exports"]["redrawn"]
    changed["operators"]["words_num"]["parameters"] = {"text": "caption"}
    Path("small.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
    killed = Path(f"results/small/report/.index.html.{platform.node()}.local.4194999.tmp")
    killed.write_text("half")
    found = kinds()
    assert found.pop(STOPPED) and found.pop("half written by a job that was killed") == [f"report/{killed.name}"]
    assert set(found.pop("weights of a seed that was removed")) == {
        "runs/unfiltered/seed-1/pretrain/connector.safetensors",
        "runs/unfiltered/seed-1/finetune/checkpoint",
    }
    assert found.pop("a source that no dataset makes") == ["sources/redrawn"]
    assert found.pop("exports of a dataset that the configuration has no more") == ["exports/redrawn"]
    assert len(found.pop("a training file that the configuration has no more")) == 4
    assert found == {"a dataset that the configuration has no more": ["datasets/redrawn"]}, "gathered scores are in use"

    for card in Path("results/small/scores").glob("*/words_num.json"):  # as the next run would gather them anew
        card.unlink()
    old = kinds()["old score shard"]
    assert old and all("/words_num/" in path for path in old)
    before = {path for path in Path("results").rglob("*") if path.is_file()}
    removed = [entry.path for entry in unneeded([Run.open("small.yaml")])]
    assert "Nothing was removed" in gc() and {path for path in Path("results").rglob("*") if path.is_file()} == before
    assert "Removed:" in gc("--yes")
    left = {path for path in Path("results").rglob("*") if path.is_file()}
    assert all(any(path == gone or gone in path.parents for gone in removed) for path in before - left)
    assert Path("results/small/runs/unfiltered/seed-1/finetune/card.json").exists(), "boards show removed runs"
    run = Run.open("small.yaml")
    problems = look_at_all(Audited(run.configuration, run.layout, run.plan))[1]
    assert all("rm -rf" not in problem.command or "words_num" in str(problem) for problem in problems), problems


def test_a_picture_that_no_record_names_is_found(place):
    [drawn, *_] = Path("results/small/sources/redrawn/images").rglob("*.png")
    stray = drawn.with_name("0" * 64 + ".png")
    shutil.copy(drawn, stray)
    assert kinds()["a picture that no record names"] == [stray.relative_to("results/small").as_posix()]
    gc("--yes")
    assert drawn.exists() and not stray.exists()
    assert [job.rule.name for job in InProcess(place).due() if do(job) is None] == [], "nothing is made again"

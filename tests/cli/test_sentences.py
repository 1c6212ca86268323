"""What a person can act on is said in a sentence: surroundings in which commands fail, or find a way."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import snakemake
from light import light_run
from workflow import ROOT, link_checkout

NOBODY = 65534
READER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all"]
"""Root who may write to nothing of another account's, and so an account like any other."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A folder like the repository, with a configuration that loads no model."""
    folder = tmp_path_factory.mktemp("checkout")
    link_checkout(folder)
    light_run(folder)
    return folder


def call(folder: Path, *command: str, **environment: str) -> tuple[int, str]:
    """Exit status, and all that a command says; no traceback is in it."""
    plain = {name: value for name, value in os.environ.items() if name != "BETTERSYNTH_CONFIG"}
    plain |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT / 'scripts'}"}
    done = subprocess.run(
        command, cwd=folder, env=plain | environment, capture_output=True, text=True, check=False, timeout=120
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said and said.count("\n  File") < 3, said
    return done.returncode, said


def test_a_path_with_a_blank_is_refused_by_make(checkout):
    status, said = call(checkout, "make", "run", "CONFIG=my small.yaml")
    assert status and "CONFIG=my small.yaml: a path with a blank" in said


@pytest.mark.workflow
def test_a_home_that_cannot_be_written_to_is_done_without(checkout):
    status, said = call(checkout, "make", "dry-run", "CONFIG=small.yaml", HOME="/proc/none", XDG_CACHE_HOME="")
    assert status == 0 and "dataset" in said


@pytest.mark.workflow
def test_a_dry_run_is_for_readers_too_and_a_run_is_refused(checkout, tmp_path):
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can be an account without rights here, and needs setpriv for it")
    folder = tmp_path / "another's"
    shutil.copytree(checkout, folder, symlinks=True)
    shutil.rmtree(folder / ".snakemake", ignore_errors=True)

    def read(target: str) -> tuple[int, str]:
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        folder.chmod(0o755)
        return call(folder, *READER, "make", target, "CONFIG=small.yaml")

    assert "clone it to a place of yours" in read("dry-run")[1]
    assert call(folder, "make", "dry-run", "CONFIG=small.yaml")[0] == 0  # its owner's
    shutil.rmtree(folder / "results")
    status, said = read("dry-run")
    assert status == 0 and "ingest" in said and not (folder / "results").exists()
    status, said = read("run")
    assert status and "you may have a dry run here, and no run" in said


@pytest.mark.workflow
def test_a_setting_alone_is_laid_over_the_usual_configuration(tmp_path):
    command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--dry-run", "--config", "name=mine", "--", "pool"]
    for name in ("config", "resources", "models"):
        (tmp_path / name).symlink_to(ROOT / name)
    status, said = call(tmp_path, *command)
    assert status and "data/miniature/mgm_pretrain_stage_1.jsonl: not there" in said  # and not: pool: missing


@pytest.mark.workflow
def test_the_snakemake_of_another_environment_says_which_is_meant(checkout, tmp_path):
    for package in Path(snakemake.__file__).parents[1].iterdir():  # all but our own, and one that ours needs
        if not re.match(r"orjson|_?bettersynth|__editable__|_editable", package.name):
            (tmp_path / package.name).symlink_to(package)
    command = [sys.executable, "-S", "-m", "snakemake", "--dry-run", "--configfile", "small.yaml"]
    status, said = call(checkout, *command, PYTHONPATH=str(tmp_path))
    assert status and "is not the environment that `make setup` makes here" in said and ".venv/bin/activate" in said

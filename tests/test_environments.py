"""The environments agree with each other, and the commands that make and link things behave."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from wheels import write_wheel

ROOT = Path(__file__).resolve().parent.parent
ENVS = ROOT / "envs"


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def locked() -> dict[str, str]:
    return dict(pin.split("==") for pin in script("lock").pins((ENVS / "lock.txt").read_text()))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_everything_that_is_needed_directly_is_locked():
    pinned = {normal(name): version for name, version in locked().items()}
    wanted = re.findall(r"^([\w.-]+)(?:==([\w.]+)|<\d+)?", (ENVS / "requirements.in").read_text(), re.MULTILINE)
    assert len(wanted) > 30
    for name, version in wanted:
        assert normal(name) in pinned, f"{name} is in requirements.in and not in lock.txt; run: make lock"
        assert version in ("", pinned[normal(name)]), f"{name}: run: make lock"


def test_the_lock_is_what_is_installed():
    different = {
        name: metadata.version(name) for name, version in locked().items() if metadata.version(name) != version
    }
    assert not different, "installed versions differ from envs/lock.txt; run: make setup"


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_conda_files_are_written_from_the_lock(kind):
    path = ENVS / f"conda-{kind}.yaml"
    assert path.read_text() == script("lock").conda_file(kind), f"{path.name} is stale; run: make lock"
    packages = next(
        entry["pip"] for entry in yaml.safe_load(path.read_text())["dependencies"] if isinstance(entry, dict)
    )
    assert "torch==2.13.0" in packages
    assert any(package.startswith("nvidia-") for package in packages) == (kind == "cuda")


def test_both_builds_are_of_one_torch():
    versions = {
        re.search(r"^torch==(\S+)", (ENVS / f"torch-{kind}.txt").read_text(), re.MULTILINE)[1]
        for kind in ("cpu", "cuda")
    }
    assert len(versions) == 1


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_bare_make_lists_every_command():
    listed = set(re.findall(r"^  ([a-z-]+) ", make().stdout, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (help(?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert listed == set(phony.replace("\\", " ").split())


def test_a_second_setup_is_quick():
    if not (ROOT / ".venv" / "setup.json").exists():
        pytest.skip("this environment was not made by `make setup`")
    result = subprocess.run(["timeout", "5", "make", "setup"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_profile_links_once_and_spares_what_is_not_ours(tmp_path):
    link = tmp_path / "snakemake" / "slurm"
    assert make("profile", XDG_CONFIG_HOME=str(tmp_path)).returncode == 0
    assert link.resolve() == ROOT / "profiles" / "slurm"
    assert make("profile", XDG_CONFIG_HOME=str(tmp_path)).returncode == 0, "a second time"
    assert make("unprofile", XDG_CONFIG_HOME=str(tmp_path)).returncode == 0
    assert not link.exists()
    link.mkdir()
    refused = make("profile", XDG_CONFIG_HOME=str(tmp_path))
    assert refused.returncode != 0 and "not ours" in refused.stderr
    make("unprofile", XDG_CONFIG_HOME=str(tmp_path))
    assert link.is_dir()


def test_the_bare_profile_name_works_from_the_root():
    assert (ROOT / "slurm").is_symlink() and (ROOT / "slurm").readlink() == Path("profiles/slurm")


@pytest.fixture
def checkout(tmp_path):
    """A project whose lock is two tiny packages; its last step of setup says that they can be imported."""
    (tmp_path / "scripts").mkdir()
    shutil.copyfile(ROOT / "scripts" / "setup.py", tmp_path / "scripts" / "setup.py")
    (tmp_path / "scripts" / "resources.py").write_text("import tiny_words, tiny_torch; print(tiny_words.WORD)")
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "lock.txt").write_text("tiny-words==1.0\n")
    for kind in ("cpu", "cuda"):
        (tmp_path / "envs" / f"torch-{kind}.txt").write_text("tiny-torch==1.0\n")
    return tmp_path


def offline_setup(checkout: Path) -> subprocess.CompletedProcess[str]:
    nowhere = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    nowhere |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    command = [sys.executable, checkout / "scripts" / "setup.py", "--offline"]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, env=nowhere)


def test_setup_without_an_index_takes_the_staged_wheels(checkout):
    refused = offline_setup(checkout)
    assert refused.returncode != 0 and "make stage WHEELS=" in refused.stderr
    for package in ("tiny-words", "tiny-torch"):
        module = package.replace("-", "_")
        write_wheel(checkout / "stage" / "wheels", package, {f"{module}/__init__.py": "WORD = 'staged'"})
    done = offline_setup(checkout)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("staged\n")


def test_setup_refuses_an_old_python():
    script_path = ROOT / "scripts" / "setup.py"
    run = f"runpy.run_path({str(script_path)!r}, run_name='__main__')"
    code = f"import runpy, sys; sys.version_info = (3, 9, 1); sys.argv = ['setup.py']; {run}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode != 0 and "Python 3.11 or newer is needed" in result.stderr


def test_both_profiles_together_let_a_site_have_its_say(monkeypatch):
    from snakemake.cli import parse_args

    monkeypatch.chdir(ROOT)
    default = yaml.safe_load((ROOT / "profiles" / "default" / "config.yaml").read_text())
    slurm = yaml.safe_load((ROOT / "profiles" / "slurm" / "config.yaml").read_text())
    assert not default.keys() & slurm.keys(), "the default profile would win over the site's"
    _, arguments = parse_args(["--profile", "slurm", "--dry-run"])
    assert (arguments.executor, arguments.latency_wait) == ("slurm", slurm["latency-wait"])
    assert arguments.default_resources is not None

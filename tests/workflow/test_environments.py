"""The environments agree with each other, and the commands that make and link things behave."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path

import pytest
import wheels
import yaml
from wheels import write_wheel

from bettersynth.core.publish import sha256_file, write_json

ROOT = Path(__file__).resolve().parents[2]
ENVS = ROOT / "envs"


def script(name: str):
    folder = ROOT / "scripts" if name == "setup" else ROOT / "scripts" / "bettersynth" / "cli"
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
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


FROM_SOURCE = {"connection-pool", "emoji", "wget"}
"""Packages of Python alone that come without wheels: pip builds them without a compiler."""


@pytest.mark.parametrize("version", ["3.11.2", "3.12.0", "3.13.0"])
def test_the_lock_is_for_every_python_without_a_compiler(version):
    """3.11.2 is Debian 12's; `uv` reads what each package asks for, and which files it has."""
    pinned = [f"{name}=={number}" for name, number in locked().items() if normal(name) not in FROM_SOURCE]
    command = [
        "uv",
        "pip",
        "compile",
        "--no-deps",
        "--only-binary=:all:",
        f"--python-version={version}",
        "-",
    ]
    environment = {**os.environ, "UV_OFFLINE": "0"}
    found = subprocess.run(command, input="\n".join(pinned), capture_output=True, text=True, env=environment)
    if re.search("connect|dns error|timed out|not found in the package registry", found.stderr):
        pytest.skip("no package index is reached from here")
    assert found.returncode == 0, found.stderr


def test_a_pip_of_other_bytes_is_not_run(tmp_path, monkeypatch):
    """Where Python brings none, setup fetches the pinned one by itself."""
    setup = script("setup")
    version = re.search(r"pip==([\d.]+)", (ENVS / "pip.txt").read_text())[1]
    name = f"pip-{version}-py3-none-any.whl"
    (tmp_path / "simple" / "pip").mkdir(parents=True)
    (tmp_path / "simple" / "pip" / "index.html").write_text(f'<a href="{name}#sha256=0">{name}</a>')
    (tmp_path / "simple" / "pip" / name).write_bytes(b"another program")
    serve = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        with pytest.raises(SystemExit, match="which is not pip's"):
            setup.download_pip(tmp_path)
        server.shutdown()


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run RECPIE=best", "RECPIE=… means nothing to `make run`; did you mean RECIPE. It takes AGAIN CONFIG"),
        ("run DATASET=best", "DATASET=… means nothing to `make run`. It takes"),
        ("dry-run SPEED=9", "SPEED=… means nothing to `make dry-run`. It takes"),
        ("status CANCEL=1", "CANCEL=… means nothing to `make status`. It takes CONFIG"),
    ],
)
def test_a_variable_that_would_be_ignored_is_refused(words, said):
    refused = make("--dry-run", *words.split())
    assert refused.returncode == 2 and said in refused.stderr and not refused.stdout


def test_every_variable_of_a_command_is_taken():
    """A command's lines read no variable that its line of TAKES_… leaves out."""
    text = (ROOT / "Makefile").read_text()
    rules = re.findall(r"^([a-z-]+):[^=\n]*  ## .*\n((?:\t.*\n)+)", text, re.MULTILINE)
    known = set(re.findall(r"^([A-Z_]+) \?=", text, re.MULTILINE))
    for name, lines in rules:
        if name == "help":
            continue
        lines = lines.replace("$(SNAKEMAKE)", "$(CORES) $(GPUS)").replace("$(TARGET)", "$(RECIPE)")
        read = known & set(re.findall(r"\$\(?(?:if |or |origin |filter-out file,\$\(origin )?\$?\(?([A-Z_]+)\)", lines))
        for variable in read - {"CONFIG", "PYTHON"}:
            assert make("--dry-run", name, f"{variable}=1").stderr.count("means nothing") == 0, (name, variable)
    assert "make run" in make("--dry-run", "demo", "TORCH=cpu", "RECIPE=best").stdout.replace(
        "--no-print-directory ", ""
    )


def test_make_names_file_and_line_of_what_is_no_yaml(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("pool:\n  images: [a\n")
    told = make("run", f"CONFIG={path}")
    assert (
        told.returncode and f"{path} is not a valid configuration" in told.stderr and "line 3: not YAML" in told.stderr
    )


def test_a_second_setup_is_quick():
    if not (ROOT / ".venv" / "setup.json").exists():
        pytest.skip("this environment was not made by `make setup`")
    made = json.loads((ROOT / ".venv" / "setup.json").read_text())
    assert made.items() >= script("setup").wanted(made["torch"]).items(), "the lock has changed; run: make setup"
    result = subprocess.run(["timeout", "5", "make", "setup"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_half_a_deleted_environment_has_no_python(tmp_path, monkeypatch):
    """Where PATH begins with it, the next setup would run by it and link it to itself."""
    setup = script("setup")
    monkeypatch.setattr(setup, "VENV", tmp_path / ".venv")
    for name in ("bin/python", "lib/module.py", "pyvenv.cfg"):
        (setup.VENV / name).parent.mkdir(parents=True, exist_ok=True)
        (setup.VENV / name).touch()
    deleted = []

    def stopped(path, **options):
        deleted.append(path)
        if len(deleted) > 1:
            raise KeyboardInterrupt
        rmtree(path, **options)

    rmtree = setup.shutil.rmtree
    monkeypatch.setattr(setup.shutil, "rmtree", stopped)
    with pytest.raises(KeyboardInterrupt):
        setup.make_venv()
    assert sorted(path.name for path in setup.VENV.iterdir()) == ["lib", "pyvenv.cfg"]


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


IN_PLACE = "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
BUILD_IN_PLACE = """
def build_editable(folder, *_):
    return write_wheel(Path(folder), 'tiny-library', {'tiny_library.pth': str(Path.cwd())}).name
"""


@pytest.fixture
def checkout(tmp_path):
    """A project whose lock is two tiny packages."""
    folder = tmp_path / "checkout"
    (folder / "scripts").mkdir(parents=True)
    shutil.copyfile(ROOT / "scripts" / "setup.py", folder / "scripts" / "setup.py")
    (folder / "scripts" / "bettersynth").symlink_to(ROOT / "scripts" / "bettersynth")
    (folder / "pyproject.toml").write_text(IN_PLACE)
    (folder / "backend.py").write_text(f"{Path(wheels.__file__).read_text()}\n\n{BUILD_IN_PLACE}")
    (folder / "envs").mkdir()
    (folder / "envs" / "lock.txt").write_text("tiny-words==1.0\n")
    (folder / "envs" / "pip.txt").write_text("pip\n")
    for kind in ("cpu", "cuda"):
        (folder / "envs" / f"torch-{kind}.txt").write_text("tiny-torch==1.0\n")
    return folder


def stage_wheels(checkout: Path) -> Path:
    wheels = checkout / "stage" / "wheels" / "cpu"
    for package in ("tiny-words", "tiny-torch"):
        write_wheel(wheels, package, {f"{package.replace('-', '_')}/__init__.py": "WORD = 'staged'"})
    return wheels


def word_in(checkout: Path) -> str:
    command = [checkout / ".venv" / "bin" / "python", "-c", "import tiny_words, tiny_torch; print(tiny_words.WORD)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def offline_setup(checkout: Path) -> subprocess.CompletedProcess[str]:
    nowhere = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    nowhere |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    command = [sys.executable, checkout / "scripts" / "setup.py", "--offline"]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, env=nowhere)


def test_setup_without_an_index_takes_the_staged_wheels(checkout):
    refused = offline_setup(checkout)
    assert refused.returncode != 0 and "make stage WHEELS=" in refused.stderr
    stage_wheels(checkout)
    done = offline_setup(checkout)
    assert done.returncode == 0, done.stderr
    assert word_in(checkout) == "staged\n"


def test_an_environment_that_was_copied_is_made_anew(checkout):
    stage_wheels(checkout)
    assert offline_setup(checkout).returncode == 0
    assert offline_setup(checkout).stdout == "", "nothing to do"
    copy = shutil.copytree(checkout, checkout.with_name("copy"), symlinks=True)
    assert "making .venv" in offline_setup(copy).stdout
    assert str(copy) in (copy / ".venv" / "bin" / "pip").read_text()
    assert word_in(copy) == "staged\n"


def test_a_path_that_snakemake_cannot_use_is_refused_at_setup(checkout):
    copy = shutil.copytree(checkout, checkout.with_name("my copy"), symlinks=True)
    refused = offline_setup(copy)
    assert refused.returncode != 0 and "/my copy/.venv/bin/python: Snakemake starts jobs by a path without ' '" in (
        refused.stderr
    )
    assert not (copy / ".venv").exists()


def test_make_says_that_an_environment_was_moved(tmp_path):
    command = tmp_path / ".venv" / "bin" / "snakemake"
    command.parent.mkdir(parents=True)
    command.touch(mode=0o755)
    ask = ["make", "--file", ROOT / "Makefile", "--directory", tmp_path, "environment"]
    for python, code in ((tmp_path / "before" / "python", 2), (sys.executable, 0)):
        command.write_text(f"#!{python}\n")
        done = subprocess.run(ask, capture_output=True, text=True)
        assert done.returncode == code and (".venv was made for another folder" in done.stdout) == bool(code)


def test_setup_says_why_staged_wheels_do_not_do(checkout):
    wheels = stage_wheels(checkout)
    files = {path.name: {"size": path.stat().st_size, "sha256": sha256_file(path)} for path in wheels.iterdir()}
    manifest = checkout / "stage" / "small.json"
    staged = {"torch": "cpu", "python": ".".join(map(str, sys.version_info[:2])), "files": files}
    write_json(manifest, {"wheels": {**staged, "python": "3.99"}})
    assert "are for Python 3.99" in offline_setup(checkout).stderr
    write_json(manifest, {"wheels": staged})
    torch = wheels / "tiny_torch-1.0-py3-none-any.whl"
    torch.write_bytes(torch.read_bytes()[:-10])
    assert f"{torch} is not as it was staged; copy it here again" in offline_setup(checkout).stderr
    torch.unlink()
    assert f"{torch} is missing" in offline_setup(checkout).stderr
    assert not (checkout / ".venv").exists()


def test_setup_needs_no_package():
    program = f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r}); from bettersynth.runtime import driver"
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True)


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


def test_setup_makes_the_link_again_that_a_zip_made_a_file(tmp_path, capsys):
    (tmp_path / "profiles" / "slurm").mkdir(parents=True)
    (tmp_path / "slurm").write_text("profiles/slurm")
    script("setup").mend_link(tmp_path / "slurm", "profiles/slurm")
    assert (tmp_path / "slurm").resolve() == tmp_path / "profiles" / "slurm" and "slurm" in capsys.readouterr().out
    script("setup").mend_link(tmp_path / "slurm", "profiles/slurm")
    assert capsys.readouterr().out == ""

"""Make `.venv` from the locked versions and fetch the word lists (`make setup`); a second call does nothing.

Needs Python 3.11 or newer and nothing else: neither root nor conda, and not even pip.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "setup.json"
NEEDED_GIB = {"cpu": 4, "cuda": 9}
WHEELS = ROOT / "stage" / "wheels"


def wanted(torch: str) -> dict[str, str]:
    """What the environment is made from."""
    files = (ROOT / "envs" / "lock.txt", ROOT / "envs" / f"torch-{torch}.txt")
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return {"packages": digest, "torch": torch}


def make_venv() -> Path:
    """Make the virtual environment, with pip, and return its Python."""
    python = VENV / "bin" / "python"
    shutil.rmtree(VENV, ignore_errors=True)
    try:
        import ensurepip  # noqa: F401
    except ImportError:  # Debian keeps it in python3-venv, which only root can install
        venv.create(VENV, symlinks=True)
        fetch_pip(python)
    else:
        venv.create(VENV, symlinks=True, with_pip=True)
    return python


def fetch_pip(python: Path) -> None:
    """Install pip from its own wheel, which runs as it is: a staged one, or from the index that pip would use."""
    with tempfile.TemporaryDirectory() as folder:
        staged = sorted(WHEELS.glob("pip-*-py3-none-any.whl"))
        wheel = staged[-1] if staged else download_pip(Path(folder))
        subprocess.run([python, f"{wheel}/pip", "install", "--quiet", "--no-index", wheel], check=True)


def download_pip(folder: Path) -> Path:
    """The newest wheel of pip in the index."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    with urllib.request.urlopen(f"{index}/pip/") as page:
        links = re.findall(r'href="([^"#]*/(pip-[\d.]+-py3-none-any\.whl)[^"]*)"', page.read().decode())
    if not links:
        raise SystemExit(f"setup: found no pip wheel at {index}; install python3-venv, then: make setup")
    link, name = links[-1]
    wheel = folder / name
    with urllib.request.urlopen(urllib.request.urljoin(f"{index}/pip/", link)) as file:
        wheel.write_bytes(file.read())
    return wheel


def use_staged_wheels() -> None:
    """Make pip, here and in every process started from here, take packages from the staged wheels and nowhere else."""
    if not any(WHEELS.glob("*.whl")):
        raise SystemExit(
            f"setup: no wheels in {WHEELS}; on a machine with a network: make stage WHEELS=cuda, then copy stage/ here"
        )
    os.environ.update(PIP_NO_INDEX="1", PIP_FIND_LINKS=str(WHEELS))


def install(python: Path, torch: str, index: str | None) -> None:
    """Install the lock without resolving anything, then torch with what its build brings."""
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off", "--quiet"]
    subprocess.run([*pip, "--no-deps", "-r", ROOT / "envs" / "lock.txt"], check=True)
    where = ["--index-url", index] if index else []
    subprocess.run([*pip, *where, "-r", ROOT / "envs" / f"torch-{torch}.txt"], check=True)


def main() -> None:
    """Bring the environment up to date, or say why it cannot be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", choices=["cpu", "cuda"], help="build of torch (default: as it is, at first cpu)")
    parser.add_argument("--torch-index", help="package index to take torch from")
    parser.add_argument("--this-python", action="store_true", help="make the environment anew for another Python")
    parser.add_argument("--offline", action="store_true", help="install from the staged wheels, without a network")
    arguments = parser.parse_args()
    if arguments.offline:
        use_staged_wheels()
    if sys.version_info < (3, 11):  # noqa: UP036 - this script runs on whatever Python the machine has
        found = sys.version.split()[0]
        raise SystemExit(f"setup: Python 3.11 or newer is needed, this is {found}; try: make setup PYTHON=python3.12")
    made = json.loads(STAMP.read_text()) if STAMP.exists() else {}
    torch = arguments.torch or made.get("torch", "cpu")
    python_version = sys.version.split()[0] if arguments.this_python else made.get("python", sys.version.split()[0])
    target = {**wanted(torch), "python": python_version}
    if made != target:
        free = shutil.disk_usage(ROOT).free / 2**30
        if free < NEEDED_GIB[torch]:
            raise SystemExit(f"setup: {NEEDED_GIB[torch]} GiB are needed in {ROOT}, {free:.1f} are free")
        print(f"setup: making .venv ({torch} build of torch); this takes a few minutes", flush=True)
        python = make_venv()
        install(python, torch, arguments.torch_index)
        STAMP.write_text(json.dumps({**target, "python": sys.version.split()[0]}))
    subprocess.run([VENV / "bin" / "python", ROOT / "scripts" / "resources.py"], check=True)


if __name__ == "__main__":
    main()

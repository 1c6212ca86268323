"""Make `.venv` from the locked versions and fetch the word lists (`make setup`); a second call does nothing.

Needs Python 3.11 or newer and nothing else: neither root nor conda, and not even pip.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "setup.json"
NEEDED_GIB = {"cpu": 4, "cuda": 9}
STAGING = ROOT / "stage"


def wanted(torch: str) -> dict[str, str]:
    """What the environment is made from."""
    files = [ROOT / "envs" / f"{name}.txt" for name in ("pip", "lock", f"torch-{torch}")]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return {"packages": digest, "torch": torch}


def make_venv() -> Path:
    """Make the virtual environment, with pip, and return its Python."""
    python = VENV / "bin" / "python"
    shutil.rmtree(VENV / "bin", ignore_errors=True)  # first: half a `.venv`, where one stops this, must have no Python
    shutil.rmtree(VENV, ignore_errors=True)
    try:
        import ensurepip  # noqa: F401
    except ImportError:  # Debian keeps it in python3-venv, which only root can install
        venv.create(VENV, symlinks=True)
        fetch_pip(python)
    else:
        venv.create(VENV, symlinks=True, with_pip=True)
    return python


def is_moved() -> bool:
    """Whether `.venv` was copied here or renamed: its commands name the folder that they were made in."""
    pip = VENV / "bin" / "pip"
    if not pip.exists():
        return False
    made_in = re.search(r'(?:#!|")(/[^"\n]+)/python', pip.read_text())
    return made_in is not None and not (Path(made_in[1]).exists() and Path(made_in[1]).samefile(VENV / "bin"))


def fetch_pip(python: Path) -> None:
    """Install pip from its own wheel, which runs as it is: a staged one, or from the index that pip would use."""
    with tempfile.TemporaryDirectory() as folder:
        staged = sorted(STAGING.glob("wheels/*/pip-*-py3-none-any.whl"))
        wheel = staged[-1] if staged else download_pip(Path(folder))
        subprocess.run([python, f"{wheel}/pip", "install", "--quiet", "--no-index", wheel], check=True)


def download_pip(folder: Path) -> Path:
    """The pinned wheel of pip, from the index and compared with its sha256."""
    pinned = (ROOT / "envs" / "pip.txt").read_text()
    version = re.findall(r"^pip==([\d.]+)", pinned, re.MULTILINE)[0]
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    with urllib.request.urlopen(f"{index}/pip/") as page:
        links = re.findall(rf'href="([^"#]*/?(pip-{re.escape(version)}-py3-none-any\.whl)[^"]*)"', page.read().decode())
    if not links:
        raise SystemExit(f"setup: found no wheel of pip {version} at {index}; install python3-venv, then: make setup")
    link, name = links[-1]
    wheel = folder / name
    with urllib.request.urlopen(urllib.request.urljoin(f"{index}/pip/", link)) as file:
        wheel.write_bytes(file.read())
    if (found := hashlib.sha256(wheel.read_bytes()).hexdigest()) not in pinned:
        raise SystemExit(f"setup: {link} has sha256 {found}, which is not pip's; nothing of it was run")
    return wheel


def staged_torch() -> str | None:
    """The build of torch that wheels are staged for, if it is one."""
    found = [torch for torch in NEEDED_GIB if any((STAGING / "wheels" / torch).glob("*.whl"))]
    return found[0] if len(found) == 1 else None


def use_staged_wheels(torch: str) -> None:
    """Make pip, here and in every process started from here, take packages from the staged wheels and nowhere else."""
    wheels = STAGING / "wheels" / torch
    if not any(wheels.glob("*.whl")):
        raise SystemExit(
            f"setup: no wheels in {wheels}; on a machine with a network: make stage WHEELS={torch}, then copy stage/ "
            "here. Another build of torch than is staged: make setup OFFLINE=1 TORCH=…"
        )
    for manifest in sorted(STAGING.glob("*.json")):
        staged = json.loads(manifest.read_text(encoding="utf-8")).get("wheels", {})
        if staged.get("torch") == torch:
            check_staged_wheels(wheels, staged)
    os.environ.update(PIP_NO_INDEX="1", PIP_FIND_LINKS=wheels.as_uri())


def check_staged_wheels(wheels: Path, staged: dict[str, Any]) -> None:
    """Compare the wheels with what the manifest says of them, and their Python with this one."""
    this, theirs = platform.python_version(), ".".join(staged["python"].split(".")[:2])
    if not this.startswith(f"{theirs}."):
        raise SystemExit(
            f"setup: the wheels in {wheels} are for Python {theirs}, this is {this}; "
            f"make setup OFFLINE=1 PYTHON=python{theirs}, or where there is a network: "
            f"make stage WHEELS={staged['torch']} PYTHON_VERSION={this}"
        )
    for name, entry in staged["files"].items():
        wheel = wheels / name
        if not wheel.exists():
            raise SystemExit(f"setup: {wheel} is missing; copy stage/ here again")
        with wheel.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                raise SystemExit(f"setup: {wheel} is not as it was staged; copy it here again")


def install(python: Path, torch: str, index: str | None) -> None:
    """Install the lock without resolving anything, torch with what its build brings, and the library in place.

    The pinned pip comes first: the one that Python carries takes several times as long to look through an index.
    """
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off", "--quiet"]
    pip += ["--no-compile", "--no-warn-conflicts"]  # what nothing here uses is left out of the lock
    subprocess.run([*pip, "--no-deps", "-r", ROOT / "envs" / "pip.txt"], check=True)
    subprocess.run([*pip, "--no-deps", "-r", ROOT / "envs" / "lock.txt"], check=True)
    where = ["--index-url", index] if index else []
    subprocess.run([*pip, *where, "-r", ROOT / "envs" / f"torch-{torch}.txt"], check=True)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--editable", ROOT], check=True)
    packages = next(VENV.glob("lib/python*/site-packages"))
    # pip compiles on one core, and some packages hold files that no Python compiles
    subprocess.run([python, "-m", "compileall", "-qq", "-j", "0", packages], check=False)


def mend_link(link: Path, target: str) -> None:
    """Make a link again that a zip, or a disk without links, has made a file of one line."""
    if link.is_symlink() or not link.is_file() or link.read_text(errors="replace").strip() != target:
        return
    link.unlink()
    try:
        link.symlink_to(target)
    except OSError:  # the disk has no links
        shutil.copytree(link.parent / target, link)
    print(f"setup: {link.name} was a file and is {target} again", flush=True)


def main() -> None:
    """Bring the environment up to date, or say why it cannot be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", choices=["cpu", "cuda"], help="build of torch (default: as it is, at first cpu)")
    parser.add_argument("--torch-index", help="package index to take torch from")
    parser.add_argument("--this-python", action="store_true", help="make the environment anew for another Python")
    parser.add_argument("--offline", action="store_true", help="install from the staged wheels, without a network")
    arguments = parser.parse_args()
    if sys.version_info < (3, 11):  # noqa: UP036 - this script runs on whatever Python the machine has
        found = sys.version.split()[0]
        raise SystemExit(f"setup: Python 3.11 or newer is needed, this is {found}; try: make setup PYTHON=python3.12")
    from bettersynth.runtime import driver  # which, like all that it imports, needs no package

    try:
        driver.check_path(str(VENV / "bin" / "python"))
    except driver.DriverError as error:
        raise SystemExit(f"setup: {error}") from None
    mend_link(ROOT / "slurm", "profiles/slurm")
    made = json.loads(STAMP.read_text()) if STAMP.exists() else {}
    torch = arguments.torch or made.get("torch") or (arguments.offline and staged_torch()) or "cpu"
    python_version = sys.version.split()[0] if arguments.this_python else made.get("python", sys.version.split()[0])
    target = {**wanted(torch), "python": python_version}
    if arguments.offline and (made != target or is_moved()):
        use_staged_wheels(torch)
    if made != target or is_moved():
        free = shutil.disk_usage(ROOT).free / 2**30
        if free < NEEDED_GIB[torch]:
            raise SystemExit(f"setup: {NEEDED_GIB[torch]} GiB are needed in {ROOT}, {free:.1f} are free")
        print(f"setup: making .venv ({torch} build of torch); this takes a few minutes", flush=True)
        python = make_venv()
        try:
            install(python, torch, arguments.torch_index)
        except subprocess.CalledProcessError:
            raise SystemExit("setup: pip could not install every package; its words are above") from None
        STAMP.write_text(json.dumps({**target, "python": sys.version.split()[0]}))
    if not arguments.offline:  # without a network, they are where they were staged or `make verify` names them
        subprocess.run([VENV / "bin" / "bettersynth", "resources"], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()

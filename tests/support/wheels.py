"""Tiny packages, written by hand."""

from __future__ import annotations

import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path


def write_wheel(folder: Path, package: str, files: Mapping[str, str], tag: str = "py3-none-any") -> Path:
    """A wheel of version 1.0 of a package with these files, for every machine unless the tag says otherwise."""
    module = package.replace("-", "_")
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{module}-1.0-{tag}.whl"
    described = {
        f"{module}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n",
        f"{module}-1.0.dist-info/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{module}-1.0.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in {**files, **described}.items():
            archive.writestr(name, content)
    return wheel


def write_source_package(folder: Path, package: str, tag: str = "py3-none-any", requires: str = "") -> Path:
    """A source package of version 1.0, which builds its wheel with `write_wheel` and asks for one package, or none."""
    name = f"{package.replace('-', '_')}-1.0"
    build = f"def build_wheel(folder, *_):\n    return write_wheel(Path(folder), {package!r}, {{}}, {tag!r}).name\n"
    files = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n",
        "pyproject.toml": f"[build-system]\nrequires = {[requires] if requires else []}\n"
        "build-backend = 'backend'\nbackend-path = ['.']\n",
        "backend.py": f"{Path(__file__).read_text()}\n\n{build}",
    }
    with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as archive, tempfile.TemporaryDirectory() as temporary:
        for file, text in files.items():
            (Path(temporary) / file).write_text(text)
            archive.add(Path(temporary) / file, f"{name}/{file}")
    return folder / f"{name}.tar.gz"

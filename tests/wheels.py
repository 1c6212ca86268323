"""Tiny packages, written by hand."""

from __future__ import annotations

import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path


def write_wheel(folder: Path, package: str, files: Mapping[str, str]) -> Path:
    """A wheel of version 1.0 of a pure Python package with these files."""
    module = package.replace("-", "_")
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{module}-1.0-py3-none-any.whl"
    described = {
        f"{module}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n",
        f"{module}-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{module}-1.0.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in {**files, **described}.items():
            archive.writestr(name, content)
    return wheel


def write_source_package(folder: Path, package: str) -> Path:
    """A source package of version 1.0, which builds its wheel with `write_wheel` and needs nothing else."""
    name = f"{package.replace('-', '_')}-1.0"
    build = f"def build_wheel(folder, *_):\n    return write_wheel(Path(folder), {package!r}, {{}}).name\n"
    files = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n",
        "pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n",
        "backend.py": f"{Path(__file__).read_text()}\n\n{build}",
    }
    with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as archive, tempfile.TemporaryDirectory() as temporary:
        for file, text in files.items():
            (Path(temporary) / file).write_text(text)
            archive.add(Path(temporary) / file, f"{name}/{file}")
    return folder / f"{name}.tar.gz"

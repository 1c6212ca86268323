"""The house in numbers: where modules lie, whether imports run in circles, how long files are, what an addition costs.

`places_to_add_a_…` counts the files that the toy additions of `tests/toys` took, the tests that run them left out.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench import ROOT

LIBRARY = "scripts/bettersynth"
TOYS = {"verb": r"^class (\w+)\(", "operator": r'"(toy_\w+)"', "benchmark": r'name: ClassVar\[str\] = "(\w+)"'}
"""What can be added as one file → how its toy's file names it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has no options of its own."""


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Counts, from the files that git tracks."""
    files = _tracked("*.py", "*.smk", "Snakefile")
    lines = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in files}
    library = [path for path in files if path.startswith(LIBRARY)]
    loose = [path for path in library if Path(path).parent.as_posix() == LIBRARY and "__" not in Path(path).name]
    return {
        "loose_modules": len(loose),
        "import_circles": len(list(circles())),
        "longest_file_lines": max(lines.values()),
        "library_files": len(library),
        "library_lines": sum(lines[path] for path in library),
        **{f"places_to_add_a_{kind}": len(places(kind)) for kind in TOYS},
    }


def circles() -> Iterator[set[str]]:
    """Modules of the library, the miniature and the benchmarks that import each other in a circle."""
    import grimp
    import networkx

    graph = grimp.build_graph("bettersynth", "miniature", "bench", exclude_type_checking_imports=True)
    imports = networkx.DiGraph()
    for module in graph.modules:
        imports.add_edges_from((module, other) for other in graph.find_modules_directly_imported_by(module))
    return (found for found in networkx.strongly_connected_components(imports) if len(found) > 1)


def places(kind: str) -> list[str]:
    """Files that name the toy of this kind, without the tests that run it."""
    toy = ROOT / "tests" / "toys" / f"bettersynth_plugin_toy_{kind}.py"
    found = re.search(TOYS[kind], toy.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None, f"{toy} names no {kind}"
    command = ["git", "-C", str(ROOT), "grep", "--ignore-case", "--word-regexp", "-l", found[1], "--", ":!*/test_*.py"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def _tracked(*patterns: str) -> list[str]:
    command = ["git", "-C", str(ROOT), "ls-files", "--", *patterns]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

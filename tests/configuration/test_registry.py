"""Things that know themselves are found in their package and among plugins."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"


def python(program: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [SCRIPTS, *folders]))}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)


def test_a_thing_is_found_where_it_is_defined(tmp_path):
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "__init__.py").touch()
    (tmp_path / "base.py").write_text("class Shape: pass\n")
    square = "from base import Shape\nclass Square(Shape): pass\nunit = Square()\n"
    (tmp_path / "shapes" / "square.py").write_text(square)
    (tmp_path / "shapes" / "_sides.py").write_text("raise SystemExit('not a thing')\n")
    (tmp_path / "shapes" / "box.py").write_text("from shapes.square import Square\nclass Box(Square): pass\n")
    (tmp_path / "bettersynth_plugin_ring.py").write_text("from base import Shape\nclass Ring(Shape): pass\n")
    program = (
        "from base import Shape\nfrom bettersynth.configuration.registry import instances, subclasses\n"
        "print(*(kind.__name__ for kind in subclasses('shapes', Shape)))\n"
        "print(*(type(thing).__name__ for thing in instances('shapes', Shape)))"
    )
    assert python(program, tmp_path).stdout.split("\n")[:2] == ["Box Square Ring", "Square"]


def test_a_plugin_that_asks_for_itself_is_told_so(tmp_path):
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "__init__.py").touch()
    (tmp_path / "bettersynth_plugin_loop.py").write_text(
        "from bettersynth.configuration.registry import modules\nmodules('things')\n"
    )
    said = python("import bettersynth_plugin_loop", tmp_path).stderr
    assert "import bettersynth.configuration before bettersynth_plugin_loop" in said

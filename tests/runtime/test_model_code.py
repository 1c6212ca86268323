"""No model folder runs a program, on real transformers and diffusers; the guard is for good, so in another process."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from workflow import MODELS, ROOT

from bettersynth.core.model_files import file_problem

PROGRAM = "from pathlib import Path; Path({ran!r}).touch()\nclass Own: pass\ndef generate(*_, **__): pass\n"

OPEN_ALL = """
import sys
from pathlib import Path
from bettersynth.runtime.patches.model_code import forbid_model_code
from bettersynth.runtime.patches.transformers import refuse_code
folder = Path(sys.argv[1])
if "unguarded" not in sys.argv:
    forbid_model_code()
from transformers import AutoModelForCausalLM, AutoTokenizer, GemmaForCausalLM
if "unguarded" not in sys.argv:
    refuse_code()
from diffusers import AutoPipelineForImage2Image
from bettersynth.sources.redrawers import pipeline_index
ways = {
    "auto_map": lambda: AutoModelForCausalLM.from_pretrained(folder / "auto_map", local_files_only=True),
    "tokenizer": lambda: AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
    "custom_generate": lambda: GemmaForCausalLM.from_pretrained(folder / "custom_generate", local_files_only=True),
    "part": lambda: AutoPipelineForImage2Image.from_pretrained(folder / "part", local_files_only=True),
    "module": lambda: pipeline_index(folder / "module"),
}
for name, way in ways.items():
    try:
        way()
        print(f"{name}: opened")
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}".replace("\\n", " "))
"""


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Model folders that bring a program, each in another way."""
    root = tmp_path_factory.mktemp("models")
    program = PROGRAM.format(ran=str(root / "ran"))
    for name in ("auto_map", "tokenizer", "custom_generate"):
        shutil.copytree(MODELS / "gemma", root / name)
    for name in ("part", "module"):
        shutil.copytree(MODELS / "diffusion", root / name)
    own = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
    change(root / "auto_map" / "config.json", model_type="own", auto_map=own)
    (root / "auto_map" / "own.py").write_text(program)
    tokenizer = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    change(root / "tokenizer" / "tokenizer_config.json", **tokenizer)
    change(root / "tokenizer" / "config.json", model_type="own", auto_map=own)
    (root / "tokenizer" / "own.py").write_text(program)
    (root / "custom_generate" / "custom_generate").mkdir()
    (root / "custom_generate" / "custom_generate" / "generate.py").write_text(program)
    change(root / "part" / "model_index.json", unet=["own", "Own"])
    (root / "part" / "unet" / "own.py").write_text(program)
    change(root / "module" / "model_index.json", unet=["module.unet.own", "Own"])
    (root / "module" / "unet" / "own.py").write_text(program)
    return root


def opened(folder: Path, *options: str) -> dict[str, str]:
    """What comes of opening each, by a person who says yes to everything."""
    environment = {**os.environ, "HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = f"{ROOT / 'scripts'}:{folder}"
    command = [sys.executable, "-c", OPEN_ALL, str(folder), *options]
    done = subprocess.run(command, input="y\n" * 20, capture_output=True, text=True, env=environment, check=True)
    lines = [line for line in done.stdout.splitlines() if ": " in line]
    return dict(line[line.rindex("] ") + 2 if "[y/N]" in line else 0 :].split(": ", 1) for line in lines)


def test_no_model_folder_runs_a_program(folder):
    found = opened(folder)
    assert set(found) == {"auto_map", "tokenizer", "custom_generate", "part", "module"}
    assert not (folder / "ran").exists(), found
    for name in ("auto_map", "tokenizer", "custom_generate", "module"):
        assert "ModelCodeError" in found[name] and name in found[name], found
    assert "ValueError" in found["part"] and "custom code in own.py" in found["part"]


def test_without_the_guard_they_would_be_run(folder):
    found = opened(folder, "unguarded")
    assert (folder / "ran").exists(), found
    (folder / "ran").unlink()


def test_a_program_in_the_place_of_generate_is_found_when_a_model_is_looked_at(folder):
    assert "a program" in str(file_problem(folder / "custom_generate" / "custom_generate" / "generate.py"))


def test_a_job_asks_nobody():
    program = "from bettersynth.runtime.patches.model_code import *; close_standard_input(); print([input()])"
    done = subprocess.run([sys.executable, "-c", program], input="y\n", capture_output=True, text=True)
    assert "EOFError" in done.stderr and not done.stdout


def tensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


LIES = {
    "length": struct.pack("<Q", 1 << 62) + b"{}",
    "long": struct.pack("<Q", 90_000_000) + b"{" + b" " * 90_000_000,
    "short": b"\1",
    "no JSON": tensors(b"{'a'}"),
    "a list": tensors([1]),
    "no places": tensors({"a": {"dtype": "F32", "shape": [1]}}),
    "no numbers": tensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]}}, bytes(4)),
    "shape": tensors({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}, bytes(4)),
    "overlap": tensors({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, bytes(4)),
    "behind": tensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)),
    "cut": tensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(4)),
    "added to": tensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(8)),
}


@pytest.mark.parametrize("lie", LIES)
def test_headers_of_weights_that_lie_are_told(tmp_path, lie):
    path = tmp_path / "model.safetensors"
    path.write_bytes(LIES[lie])
    assert file_problem(path), "the one who asks names the file"


def test_whole_weights_have_no_problem():
    assert file_problem(MODELS / "gemma" / "model.safetensors") is None

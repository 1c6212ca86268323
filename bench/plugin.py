"""An unchanged Data-Juicer recipe in `dj-process`, without the plugin and with it: same pictures, same machine.

The recipe has CLIP's similarity, of the published size and with random weights; pictures are noisy JPEGs of 448 by 336
pixels. Each side runs over few pairs and over all: the difference of both is what a pair costs, read, scored, filtered
and exported, and what is left of the shorter run is the start. Stats and kept rows are compared pair by pair.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from bench import ROOT
from bench.scoring import CASES, make_pairs

PLUGIN = ROOT / "plugins" / "data-juicer"
DJ_PROCESS = "import sys; from data_juicer.tools.process_data import main; sys.exit(main())"
CONTEST_PAIRS = 410_000
RAY = """
def remote(*given, **options):
    return given[0] if given and callable(given[0]) else lambda function: function

def is_initialized():
    return False

class Anything(type):
    def __getattr__(self, name):
        return __getattr__(name)

def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return Anything(name, (), {"__init__": lambda self, *given, **options: None})
"""
"""Stands for Ray where it is not installed: Data-Juicer imports it, and does without it in its default executor."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=24_000, help="pairs of the longer runs (default: %(default)s)")
    parser.add_argument("--few", type=int, default=400, help="pairs of the shorter runs (default: %(default)s)")
    parser.add_argument("--files", type=int, default=2048, help="different pictures; the rest are links to them")
    parser.add_argument("--np", type=int, default=4, help="the recipe's processes (default: %(default)s, the usual)")


class Run(NamedTuple):
    """What one `dj-process` took and wrote."""

    seconds: float
    stats: dict[str, list[float]]
    """Of the rows that it kept, by id."""


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Both sides, short and long. Raises RuntimeError where the sides keep other rows."""
    with tempfile.TemporaryDirectory(prefix="bench-plugin-") as temporary:
        folder = Path(temporary)
        _write(folder, options)
        stock = [_run(folder, number, options, batched=False) for number in (options.few, options.pairs)]
        ours = [_run(folder, number, options, batched=True) for number in (options.few, options.pairs)]
    figures = {"pairs": options.pairs, "processes": options.np}
    figures |= _side("stock", stock, options) | _side("batched", ours, options)
    differences = [
        abs(one - other)
        for key in stock[1].stats.keys() & ours[1].stats.keys()
        for one, other in zip(stock[1].stats[key], ours[1].stats[key], strict=True)
    ]
    return figures | {
        "similarity_times_stock": round(figures["batched_pairs_per_s"] / figures["stock_pairs_per_s"], 1),
        "run_times_stock": round(stock[1].seconds / ours[1].seconds, 1),
        "run_times_stock_410k": round(figures["stock_410k_minutes"] / figures["batched_410k_minutes"], 1),
        "largest_difference": max(differences),
        "rows_kept": len(stock[1].stats),
        "rows_kept_by_one_side": len(stock[1].stats.keys() ^ ours[1].stats.keys()),
    }


def _side(name: str, runs: list[Run], options: argparse.Namespace) -> dict[str, float]:
    short, long = runs
    rate = (options.pairs - options.few) / (long.seconds - short.seconds)
    start = short.seconds - options.few / rate
    return {
        f"{name}_seconds": round(long.seconds, 1),
        f"{name}_start_seconds": round(start, 1),
        f"{name}_pairs_per_s": round(rate, 1),
        f"{name}_410k_minutes": round((start + CONTEST_PAIRS / rate) / 60, 2),
    }


def _write(folder: Path, options: argparse.Namespace) -> None:
    """Pairs as Data-Juicer's JSONL of both lengths, the model, and what makes the plugin be found."""
    from bettersynth.runtime import patches

    patches.prepare(folder / "cache")  # before transformers is imported
    records = make_pairs(folder / "images", options.pairs, options.files)
    lines = [
        json.dumps({"id": record.id, "text": record.text, "images": [f"images/{record.images[0]}"]})
        for record in records
    ]
    for number in (options.few, options.pairs):
        (folder / f"{number}.jsonl").write_text("\n".join(lines[:number]) + "\n", encoding="utf-8")
    CASES["similarity"].model(folder / "clip")
    found_at(folder / "installed")
    if importlib.util.find_spec("ray") is None:
        for module in ("ray", "ray/data"):
            (folder / "without-ray" / module).mkdir(parents=True)
            (folder / "without-ray" / module / "__init__.py").write_text(RAY)


def found_at(folder: Path) -> None:
    """Make Data-Juicer find the checkout's plugin where this folder is on the path, as if pip had put it there."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    facts = folder / f"bettersynth_data_juicer-{project['version']}.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    (facts / "entry_points.txt").write_text("\n".join(groups))
    (folder / "bettersynth_data_juicer").symlink_to(PLUGIN / "bettersynth_data_juicer")


def _run(folder: Path, pairs: int, options: argparse.Namespace, *, batched: bool) -> Run:
    """`dj-process` over the first `pairs`; raises RuntimeError with its last words when it fails."""
    side = "batched" if batched else "stock"
    recipe: dict[str, Any] = {
        "dataset_path": str(folder / f"{pairs}.jsonl"),
        "export_path": str(folder / f"{side}-{pairs}" / "kept.jsonl"),
        "np": options.np,
        "use_cache": False,
        "open_monitor": False,
        "keep_stats_in_res_ds": True,
        "skip_op_error": False,
        "process": [{"image_text_similarity_filter": {"hf_clip": str(folder / "clip"), "min_score": -1.0}}],
    }
    settings = folder / f"{side}-{pairs}.json"
    settings.write_text(json.dumps(recipe))
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", DJ_PROCESS, "--config", str(settings)],
        env=_environment(folder, options.device, batched),
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"dj-process, {side}: {done.stderr[-3000:]}")
    if "one sample at a time" in done.stderr:
        raise RuntimeError("the plugin found no batched form: " + done.stderr.split("one sample at a time")[1][:500])
    rows = [json.loads(line) for line in Path(recipe["export_path"]).read_text().splitlines()]
    print(f"{side}: {pairs} pairs in {seconds:.1f} s", flush=True)
    return Run(seconds, {row["id"]: row["__dj__stats__"]["image_text_similarity"] for row in rows})


def _environment(folder: Path, device: str, batched: bool) -> dict[str, str]:
    """The one setting, and what keeps both sides off the network."""
    paths = [str(folder / "without-ray"), str(ROOT / "scripts"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    offline = {"HF_HUB_OFFLINE": "1", "UV_OFFLINE": "1", "PIP_NO_INDEX": "1", "HF_HOME": str(folder / "hf")}
    environment = os.environ | offline | {"DATA_JUICER_CACHE_HOME": str(folder / "cache")}
    if batched:
        paths.insert(0, str(folder / "installed"))
        environment["BETTERSYNTH_FILTERS"] = "batched"
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    for name in ("DATA_JUICER_MODELS_CACHE", "DATA_JUICER_ASSETS_CACHE"):
        environment.pop(name, None)
    return environment | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}

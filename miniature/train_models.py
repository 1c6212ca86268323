#!/usr/bin/env python3
"""Train the miniature's models, or measure what the shipped ones are worth.

python -m miniature.train_models train --out resources/miniature/models
python -m miniature.train_models quality --seed-range 900000:902000
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "resources/miniature/models"
MEASURED = ROOT / "docs/measurements/miniature-quality.json"


def main() -> None:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    _add_train(commands)
    _add_quality(commands)
    options = parser.parse_args()
    options.run(options)


def _add_train(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("train", help="train the models on rendered scenes")
    parser.set_defaults(run=train)
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder of the models (default: %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="train these only")
    parser.add_argument("--seed", type=int, default=0, help="world and training seed (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=120_000, help="scenes to learn from (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="wind learning down after this long")
    parser.add_argument("--pace", type=float, default=1.0, help="multiplies every number of steps")
    parser.add_argument("--batch", type=float, default=1.0, help="multiplies every batch size")
    parser.add_argument("--rate", type=float, default=1.0, help="multiplies every learning rate")
    parser.add_argument("--resume", action="store_true", help="go on from the weights in --out")
    parser.add_argument("--device", choices=("cpu", "cuda"), default=_best_device(), help="(default here: %(default)s)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes that render")
    parser.add_argument("--work", type=Path, help="folder for the rendered scenes; kept if given")
    parser.add_argument("--as-child", action="store_true", help=argparse.SUPPRESS)


def _best_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def train(options: argparse.Namespace) -> None:
    """Render the scenes, then train every model: all at once on GPUs, one after the other on CPUs."""
    if options.as_child:
        _train_one(options)
        return
    from miniature import material

    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        started = time.monotonic()
        material.write(work, options.seed, options.scenes, options.workers)
        print(f"rendered {options.scenes} scenes in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        _train_all(options, work)


def _train_all(options: argparse.Namespace, work: Path) -> None:
    """Start a process for each model, on GPU after GPU; one at a time on CPUs. A model waits for what it needs."""
    from miniature.training import NEEDS, TRAINERS

    waiting = [name for name in TRAINERS if not options.only or name in options.only]
    # A model and the one it starts from share the time that others have alone.
    chained = {name for pair in NEEDS.items() if set(pair) <= set(waiting) for name in pair}
    running: dict[str, subprocess.Popen] = {}
    at_once = len(waiting) if options.device == "cuda" else 1
    gpus = _gpu_count() if options.device == "cuda" else 1
    failed, started = [], 0
    while waiting or running:
        for name in [name for name, process in running.items() if process.poll() is not None]:
            if running.pop(name).returncode:
                failed.append(name)
        ready = [name for name in waiting if NEEDS.get(name) not in [*waiting, *running]]
        for name in ready[: at_once - len(running)]:
            waiting.remove(name)
            seconds = options.seconds / len(chained) if name in chained else options.seconds
            running[name] = _start(options, work, name, seconds, started % gpus)
            started += 1
        time.sleep(0.5)
    if failed:
        sys.exit(f"python -m miniature.train_models: {', '.join(failed)} failed; see the messages above")


def _gpu_count() -> int:
    import torch

    return torch.cuda.device_count()


def _start(options: argparse.Namespace, work: Path, name: str, seconds: float, gpu: int) -> subprocess.Popen:
    settings = ["--out", options.out, "--work", work, "--seed", options.seed, "--scenes", options.scenes]
    settings += ["--seconds", seconds, "--pace", options.pace]
    settings += ["--batch", options.batch, "--rate", options.rate, "--device", options.device, "--only", name]
    settings += ["--resume"] * options.resume
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "RAYON_NUM_THREADS": "4"}
    if options.device == "cuda":
        environment["CUDA_VISIBLE_DEVICES"] = str(gpu)
    command = [sys.executable, "-m", "miniature.train_models", "train", "--as-child", *map(str, settings)]
    return subprocess.Popen(command, env=environment)


def _train_one(options: argparse.Namespace) -> None:
    """Train one model and write its figures beside it."""
    import torch

    from miniature import training
    from miniature.material import Material

    (name,) = options.only
    path = options.out / training.FOLDERS.get(name, name) / "training.json"
    goes_on = options.resume and path.is_file()
    earlier = json.loads(path.read_text(encoding="utf-8"))["rounds"] if goes_on else []
    lesson = training.Lesson(
        Material(options.work),
        options.out,
        options.device,
        options.seed,
        pace=options.pace,
        batch=options.batch,
        rate=options.rate,
        resume=options.resume,
        seconds=options.seconds,
    )
    figures = training.train(name, lesson)
    device = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    parameters = figures.pop("parameters")
    asked = {key: getattr(options, key) for key in ("seed", "scenes", "batch", "rate")}
    now = {"name": name, **asked, "device": device}
    trained = {"parameters": parameters, "rounds": [*earlier, {**now, **figures}]}
    path.write_text(json.dumps(trained, indent=1) + "\n", encoding="utf-8")


def _add_quality(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("quality", help="measure the models on scenes that none has seen")
    parser.set_defaults(run=quality)
    parser.add_argument("--seed-range", default="900000:902000", help="scenes START:STOP (default: %(default)s)")
    parser.add_argument("--models", type=Path, default=SHIPPED, help="folder of the models (default: %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="EXAM", help="measure these only; prints and writes no file")
    parser.add_argument("--out", type=Path, default=MEASURED, help="(default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: %(default)s)")


def quality(options: argparse.Namespace) -> None:
    """Print the table of figures and targets; keep it as JSON, and in the models' cards."""
    from bench import record
    from miniature import cards
    from miniature import quality as measuring

    start, stop = map(int, options.seed_range.split(":"))
    exam = measuring.Exam(options.models, start, stop, device=options.device)
    figures: dict[str, float] = {}
    for name in options.only or measuring.EXAMS:
        measured = measuring.measure(exam, [name])
        figures |= measured
        print("\n".join(cards.line(figure, value) for figure, value in measured.items()), flush=True)
    if options.only:
        return
    command = f"python -m miniature.train_models quality --seed-range {options.seed_range}"
    kept = record(options.out, command, figures, options.device)
    cards.write(options.models, kept)


if __name__ == "__main__":
    main()

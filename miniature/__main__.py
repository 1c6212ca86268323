#!/usr/bin/env python3
"""Make the miniature: a small world of pictures and captions with known truth.

python -m miniature render --out data/miniature --records 2400
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from miniature.render import render_world

SETTINGS = {
    "records": (2400, "pairs of stage_1"),
    "second_records": (0, "pairs of stage_2"),
    "seed": (0, "which world"),
    "textvqa": (500, "questions of TextVQA"),
    "mmbench": (320, "questions of MMBench, each with its circular copies"),
    "instructions": (2000, "records of the instruction set"),
}
"""What decides the world's bytes: default and meaning. Keys of a settings file, and options of the command."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    _add_render(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (FileExistsError, ValueError) as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")


def _add_render(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("render", help="write pool, truth, questions and instruction set")
    parser.set_defaults(run=_render)
    parser.add_argument("--out", type=Path, required=True, help="folder of the world")
    parser.add_argument("--settings", type=Path, help="YAML file with the values below (and `faults`); options win")
    for name, (default, meaning) in SETTINGS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"{meaning} (default: {default})")
    parser.add_argument("--faults", action="store_true", default=None, help="mix broken lines into stage_1")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--workers", type=int, default=cores, help="processes (default: all cores, %(default)s)")


def _render(options: argparse.Namespace) -> None:
    started = time.monotonic()
    values: dict[str, Any] = {name: default for name, (default, _) in SETTINGS.items()} | {"faults": False}
    values |= _read_settings(options.settings, list(values)) if options.settings else {}
    values |= {name: getattr(options, name) for name in values if getattr(options, name) is not None}
    counts = render_world(options.out, **values, workers=options.workers)["counts"]
    print(
        f"{options.out}: {counts['records']} records ({counts['clean'] / counts['records']:.1%} without defects), "
        f"{counts['textvqa_questions']} TextVQA questions, {counts['mmbench_rows']} MMBench rows, "
        f"{counts['instructions']} instructions; {time.monotonic() - started:.1f} s"
    )


def _read_settings(path: Path, names: list[str]) -> dict[str, int]:
    """The values in a settings file; raises ValueError for a name or a value that means nothing."""
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    for name, value in values.items():
        if name not in names:
            raise ValueError(f"{path}: unknown key `{name}`; accepted are {', '.join(names)}")
        if not isinstance(value, bool if name == "faults" else int):
            raise ValueError(f"{path}: `{name}: {value}` is no {'true or false' if name == 'faults' else 'number'}")
    return values


if __name__ == "__main__":
    main()

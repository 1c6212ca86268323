#!/usr/bin/env python3
"""Make the miniature: a small world of pictures and captions with known truth.

    python scripts/miniature.py render --out data/miniature --records 2400
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from bettersynth.miniature.render import render_world


def main(arguments: list[str] | None = None) -> None:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    _add_render(commands)
    options = parser.parse_args(arguments)
    options.run(options)


def _add_render(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("render", help="write pool, truth, questions and instruction set")
    parser.set_defaults(run=_render)
    parser.add_argument("--out", type=Path, required=True, help="folder of the world")
    parser.add_argument("--records", type=int, default=2400, help="pairs of stage_1 (default: %(default)s)")
    parser.add_argument("--second-records", type=int, default=0, help="pairs of stage_2 (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which world (default: %(default)s)")
    parser.add_argument("--textvqa", type=int, default=500, help="questions (default: %(default)s)")
    parser.add_argument("--mmbench", type=int, default=320, help="questions, copies apart (default: %(default)s)")
    parser.add_argument("--instructions", type=int, default=2000, help="records (default: %(default)s)")
    parser.add_argument("--faults", action="store_true", help="mix one broken line of each kind into stage_1")
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: all cores)"
    )


def _render(options: argparse.Namespace) -> None:
    started = time.monotonic()
    try:
        manifest = render_world(
            options.out,
            options.records,
            options.seed,
            second_records=options.second_records,
            textvqa=options.textvqa,
            mmbench=options.mmbench,
            instructions=options.instructions,
            faults=options.faults,
            workers=options.workers,
        )
    except FileExistsError as error:
        sys.exit(f"miniature.py render: {error}")
    counts = manifest["counts"]
    share = counts["clean"] / counts["records"]
    print(
        f"{options.out}: {counts['records']} records ({share:.1%} without defects), "
        f"{counts['textvqa_questions']} TextVQA questions, {counts['mmbench_rows']} MMBench rows, "
        f"{counts['instructions']} instructions; {time.monotonic() - started:.1f} s"
    )


if __name__ == "__main__":
    main()

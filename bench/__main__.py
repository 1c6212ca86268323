#!/usr/bin/env python3
"""Run one of the benchmarks of `bench` and keep its figures in `docs/measurements/NAME.json`.

python -m bench data-plane --records 41000
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import shlex
import sys
from pathlib import Path

import bench


def main() -> None:
    """Run the benchmark that the arguments name, print its figures and record them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(title="benchmarks", dest="name", required=True, metavar="NAME")
    for name in sorted(found.name for found in pkgutil.iter_modules(bench.__path__) if found.name[0] != "_"):
        _add(commands, name.replace("_", "-"), importlib.import_module(f"bench.{name}"))
    options = parser.parse_args()
    figures = options.measure(options)
    width = max(map(len, figures), default=0)
    print("\n".join(f"{figure:<{width}}  {value:>12,.6g}" for figure, value in figures.items()))
    command = shlex.join(["python", "-m", "bench", *map(_anywhere, sys.argv[1:])])
    bench.record(options.out, command, figures, options.device)
    print(f"kept in {options.out}")


def _anywhere(word: str) -> str:
    """A word of the command line as another machine can have it: of an absolute path, the last part."""
    return Path(word).name if Path(word).is_absolute() else word


def _add(commands: argparse._SubParsersAction, name: str, module) -> None:
    parser = commands.add_parser(name, help=(module.__doc__ or "").splitlines()[0], description=module.__doc__)
    kept = bench.MEASUREMENTS / f"{name}.json"
    parser.add_argument("--out", type=Path, default=kept, help="file for the figures (default: %(default)s)")
    parser.set_defaults(measure=module.measure, device="cpu")
    module.add_arguments(parser)


if __name__ == "__main__":
    main()

"""Pack what the next jobs of a run need, or what this machine has finished (`make bundle`)."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from pathlib import Path

from bettersynth.configuration import ConfigurationError, load
from bettersynth.configuration.load import check_recipe
from bettersynth.deploy.archive import ArchiveError, pack
from bettersynth.deploy.relay import Relay, RelayError, due_jobs, part_of

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def size(text: str) -> int:
    """Bytes: `4G`, `700M`."""
    match = re.fullmatch(r"(\d+)([KMG]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text}: give a size such as 4G or 700M")
    return int(match[1]) * UNITS[match[2]]


def part(text: str) -> tuple[int, int]:
    """Number and count: `2/3`."""
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if match is None or int(match[1]) > int(match[2]):
        raise argparse.ArgumentTypeError(f"{text}: give a part such as 1/3")
    return int(match[1]), int(match[2])


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--config", type=Path, default=Path("config/miniature.yaml"))
parser.add_argument("--to", type=Path, required=True, metavar="FILE.tar.zst")
parser.add_argument("--recipe", help="what to bundle for (default: everything)")
parser.add_argument("--until", metavar="RULE", help="only as far as this rule, such as score_neural or finetune")
parser.add_argument("--part", type=part, metavar="1/3", help="one of so many equal parts of the jobs, for one machine")
parser.add_argument("--models", action="store_true", help="models by value, not by reference")
parser.add_argument("--results", action="store_true", help="what was finished here, to take home")
parser.add_argument("--split", type=size, metavar="4G", help="largest part of the archive")
arguments = parser.parse_args()
logging.basicConfig(level=logging.INFO, format="%(message)s")

try:
    configuration = load(arguments.config)
    recipe = check_recipe(configuration, arguments.recipe)
    relay = Relay(configuration, arguments.config)
    if arguments.results:
        bundle = relay.results()
    else:
        jobs = due_jobs(
            arguments.config, [f"recipe_{arguments.recipe}" if arguments.recipe else "all"], arguments.until
        )
        if arguments.part:
            jobs = part_of(jobs, *arguments.part)
        if not jobs:
            sys.exit("bundle: nothing is left to run")
        bundle = relay.work(jobs, models=arguments.models, recipe=recipe)
    if not bundle.files:
        sys.exit("bundle: nothing was finished here that did not come here in a bundle")
    parts = pack(arguments.to, bundle.files, bundle.facts, arguments.split)
except (ConfigurationError, RelayError, ArchiveError) as error:
    sys.exit(f"bundle: {error}")
total = sum(path.stat().st_size for path in parts)
print(f"{len(bundle.files):,} files, {total / 1e6:,.1f} MB: {', '.join(map(str, parts))}")
for path in bundle.facts.get("elsewhere", []):
    print(f"not in it, must be on the other machine: {path}")
if bundle.facts.get("elsewhere") and not arguments.models:
    print("MODELS=1 packs the models too")
print(f"there: make {'merge' if arguments.results else 'unbundle'} FROM={arguments.to.name}")

"""Open a bundle in this folder: work to do here (`make unbundle`), or results that come home (`make merge`)."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from pathlib import Path

from bettersynth.deploy.archive import ArchiveError
from bettersynth.deploy.relay import RelayError, receive

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--from", dest="archive", type=Path, required=True, metavar="FILE.tar.zst")
parser.add_argument("--results", action="store_true", help="results that come home")
parser.add_argument("--replace", action="store_true", help="take the bundle's files in place of others here")
arguments = parser.parse_args()
logging.basicConfig(level=logging.INFO, format="%(message)s")

try:
    kind = "results" if arguments.results else "work"
    manifest, new = receive(arguments.archive, kind, replace=arguments.replace)
except (RelayError, ArchiveError) as error:
    sys.exit(f"{'merge' if arguments.results else 'unbundle'}: {error}")
print(f"{new:,} files unpacked, {len(manifest['files']) - new:,} were here already")
if missing := [path for path in manifest.get("elsewhere", []) if not Path(path).exists()]:
    print(f"to be put here, or staged: {', '.join(missing)}")
if not arguments.results:
    config_file = manifest["config_file"]
    recipe = f" RECIPE={manifest['recipe']}" if manifest.get("recipe") else ""
    installed = Path(".venv") / "bin" / "snakemake"
    program = str(installed) if installed.exists() else "snakemake"
    command = [program, "--configfile", config_file, "--cores", "all", "--", *manifest["targets"]]
    print(f"look: make verify CONFIG={config_file}{recipe}")
    print(f"next: {shlex.join(command)}")
    print(f"then: make bundle RESULTS=1 CONFIG={config_file} TO=results.tar.zst")

"""Write leaderboard and page from what a run has made so far (`make page`), beside the final ones."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bettersynth.configuration import ConfigurationError, load
from bettersynth.core.layout import Layout
from bettersynth.report import build_report
from bettersynth.report.leaderboard import build_leaderboard
from bettersynth.workflow.plan import Plan


class SoFar(Layout):
    """The layout of a run that is still going on: Snakemake's own report stays as it is."""

    @property
    def leaderboard(self) -> Path:
        """The leaderboard of the results that are there."""
        return self.root / "report" / "so_far" / "leaderboard.json"

    @property
    def report(self) -> Path:
        """The page over the results that are there."""
        return self.leaderboard.with_name("index.html")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--config", default="config/miniature.yaml")
arguments = parser.parse_args()

try:
    configuration = load(arguments.config)
except ConfigurationError as error:
    sys.exit(str(error))
layout = SoFar(Path("results") / str(configuration.name))
if configuration.recipes:
    build_leaderboard(configuration, layout)
print(f"Page: {build_report(configuration, layout, Plan(configuration)).resolve()}")
